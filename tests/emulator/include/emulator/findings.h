// Mistakes of the host program that CUDA itself answers with an error code at most: a pointer freed twice, bytes
// written beside an allocation, things never released. Each is said on standard error when it is found; a program that
// ends with any of them, or with unreleased things, says so when its module is unloaded and ends with exit status
// kFindingsExitStatus.
#pragma once

#include <string>
#include <vector>

namespace emulator {

constexpr int kFindingsExitStatus = 86;

// What was found since the last call of this; the program's end no longer counts it.
std::vector<std::string> take_findings();
// What the program has not released so far, in order of creation.
std::vector<std::string> unreleased();

}  // namespace emulator
