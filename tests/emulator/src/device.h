// What kind of device this is.
#pragma once

#include <cstddef>

namespace emulator {

constexpr size_t kFreeSharedBytes = size_t{48} << 10;  // of a block, without asking

// Dynamic shared memory that a block of this kernel may have: what it was given by cudaFuncSetAttribute.
size_t allowed_shared_bytes(const void* kernel);
bool is_supported();  // kernels are built for it

}  // namespace emulator
