// Where the `__shared__` variables of the emulated kernels lie.
#pragma once

#include <cstddef>
#include <span>

namespace emulator {

// simt.h makes every `__shared__` variable thread-local, so they are the thread-local block of the module that this
// code is linked into, which must have no other thread-local variables. Empty when the kernels have none.
std::span<std::byte> static_shared_memory();

}  // namespace emulator
