// Everything that a program creates and must release.
#pragma once

#include <cstdint>
#include <string>

namespace emulator {

// Returns its number: things are counted from 1, all kinds together. `what` is for people: "a stream".
uint64_t track(const void* handle, std::string what);
// False if there is no such thing (any more).
bool forget(const void* handle);
bool alive(const void* handle);

void report_finding(std::string text);

}  // namespace emulator
