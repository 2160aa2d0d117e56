// Where the `__shared__` variables of the emulated kernels lie.
#pragma once

#include <cstddef>
#include <span>

namespace emulator {

// simt.h puts every `__shared__` variable in one section, or makes it thread-local: they are that section, or the
// thread-local block, of the module that this code is linked into, which must have no other thread-local variables.
// Empty when the kernels have none.
std::span<std::byte> static_shared_memory();

}  // namespace emulator
