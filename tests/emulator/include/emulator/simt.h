// CUDA's device side for a host compiler: put in front of every .cu file (-include) when it is compiled as C++.
// Types and prototypes come from CUDA's own headers; here is what those leave out without nvcc.
#pragma once

// host_defines.h defines these only if nobody has. The engine must find all shared variables, to fill them with garbage
// before each thread block. g++ ignores a section's name on variables of templates, but a module's thread-local
// variables lie together too. AddressSanitizer puts guards only between variables that are not thread-local.
#if defined(__clang__)
#define __shared__ static __attribute__((section(".emulated_shared")))
#else
#define __shared__ static thread_local
#endif
#define __constant__ static

// The header's template erases the arguments' types; launch.h has one that keeps them.
#define cudaLaunchKernelEx emulator_untyped_launch
#include <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include "emulator/engine.h"

#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))
#undef __noinline__  // libstdc++ spells an attribute so

using emulator::blockDim;
using emulator::blockIdx;
using emulator::gridDim;
using emulator::threadIdx;
constexpr int warpSize = 32;

// A barrier is named by its line in the source, not by its return address: the optimiser may copy the call.
inline void __syncthreads(int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  emulator::block_barrier({file, line}, false);
}
inline int __syncthreads_count(int predicate, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  return static_cast<int>(emulator::block_barrier({file, line}, predicate != 0));
}
inline int __syncthreads_or(int predicate, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  return emulator::block_barrier({file, line}, predicate != 0) != 0;
}
inline int __syncthreads_and(int predicate, int line = __builtin_LINE(), const char* file = __builtin_FILE()) {
  return emulator::block_barrier({file, line}, predicate == 0) == 0;
}
#include "emulator/launch.h"
#include "emulator/simt_atomic.h"
#include "emulator/simt_math.h"
#include "emulator/simt_warp.h"
