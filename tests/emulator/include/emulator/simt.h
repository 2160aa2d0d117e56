// CUDA's device side for a host compiler: put in front of every .cu file (-include) when it is compiled as C++.
// Types and prototypes come from CUDA's own headers; here is what those leave out without nvcc.
#pragma once

// host_defines.h defines these only if nobody has. Thread-local variables of a module lie together in one block even in
// templates, so that the engine finds all of them and fills them with garbage before each thread block.
#define __shared__ static thread_local
#define __constant__ static

// The header's template erases the arguments' types; launch.h has one that keeps them.
#define cudaLaunchKernelEx emulator_untyped_launch
#include <cuda_runtime.h>
#undef cudaLaunchKernelEx

#include <cstdint>
#include <cstring>
#include <type_traits>

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
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulator::warp_exchange(emulator::WarpOperation::kSync, mask, {});
}

namespace emulator {

template <class T>
uint64_t to_word(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t word = 0;
  std::memcpy(&word, &value, sizeof(T));
  return word;
}

// The value lane `source` brought to a shuffle, or one's own where that lane lies outside the segment.
template <class T>
T shuffle(unsigned mask, T value, unsigned source, bool inside) {
  const uint64_t word =
      warp_exchange(WarpOperation::kShuffle, mask, {.word = to_word(value), .source = inside ? source : lane()});
  T out;
  std::memcpy(&out, &word, sizeof(T));
  return out;
}

}  // namespace emulator

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  return emulator::shuffle(mask, value, (lane & ~(segment - 1)) | (static_cast<unsigned>(source) & (segment - 1)),
                           true);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  const unsigned source = lane ^ static_cast<unsigned>(lane_mask);
  return emulator::shuffle(mask, value, source, (source & ~(segment - 1)) <= (lane & ~(segment - 1)));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  return emulator::shuffle(mask, value, lane + delta, (lane & (segment - 1)) + delta < segment);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const unsigned lane = emulator::lane(), segment = static_cast<unsigned>(width);
  return emulator::shuffle(mask, value, lane - delta, (lane & (segment - 1)) >= delta);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t vote = predicate != 0 ? 1 : 0;
  return static_cast<unsigned>(emulator::warp_exchange(emulator::WarpOperation::kBallot, mask, {.word = vote}));
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value) {
  return static_cast<unsigned>(
      emulator::warp_exchange(emulator::WarpOperation::kMatch, mask, {.word = emulator::to_word(value)}));
}
inline int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) == mask;
}

#include "emulator/launch.h"
#include "emulator/simt_math.h"
