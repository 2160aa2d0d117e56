// Sums and maxima over a warp and over a block, in a fixed order.
#pragma once

#include "kernels/launch.h"

namespace mhmoe::cuda {

constexpr unsigned kFullWarp = 0xffffffffu;

// Every lane gets the result. All lanes of the warp must call.
template <class T>
__device__ T warp_sum(T value) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += __shfl_xor_sync(kFullWarp, value, mask);
  return value;
}

template <class T>
__device__ T warp_max(T value) {
  for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const T other = __shfl_xor_sync(kFullWarp, value, mask);
    value = other > value ? other : value;
  }
  return value;
}

// What each warp of the block has, for every thread. All threads must call.
template <int kThreads, class T, class Combine>
__device__ T block_combine(T of_warp, Combine combine) {
  constexpr int kWarps = kThreads / kWarpSize;
  __shared__ T partial[kWarps];
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = of_warp;
  __syncthreads();
  T total = partial[0];
  for (int w = 1; w < kWarps; ++w) total = combine(total, partial[w]);
  __syncthreads();  // `partial` may be reused by the next call
  return total;
}

// Every thread gets the sum. kThreads is the block's size, a multiple of the warp's. All threads must call.
template <int kThreads, class T>
__device__ T block_sum(T value) {
  return block_combine<kThreads>(warp_sum(value), [](T a, T b) { return a + b; });
}

// The same for the largest.
template <int kThreads, class T>
__device__ T block_max(T value) {
  return block_combine<kThreads>(warp_max(value), [](T a, T b) { return b > a ? b : a; });
}

}  // namespace mhmoe::cuda
