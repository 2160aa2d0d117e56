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

// Every thread gets the sum. kThreads is the block's size, a multiple of the warp's. All threads must call.
template <int kThreads>
__device__ float block_sum(float value) {
  constexpr int kWarps = kThreads / kWarpSize;
  __shared__ float partial[kWarps];
  value = warp_sum(value);
  if (threadIdx.x % kWarpSize == 0) partial[threadIdx.x / kWarpSize] = value;
  __syncthreads();
  float total = 0;
  for (int w = 0; w < kWarps; ++w) total += partial[w];
  __syncthreads();  // `partial` may be reused by the next call
  return total;
}

}  // namespace mhmoe::cuda
