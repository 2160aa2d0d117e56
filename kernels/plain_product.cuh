// The product of a block of threads without tensor cores, for f32 and for matrices of any width: 64x64 sums.
#pragma once

#include "kernels/launch.h"

namespace mhmoe::cuda {

constexpr int kPlainThreads = 256;
constexpr int kPlainTile = 64;
constexpr int kPlainDepth = 16;
constexpr int kPlainSums = 4;  // rows and columns of a thread's sums: 16 threads beside each other, 16 above

// Fills tile[depth, extent]. Neighbouring threads take what lies side by side in memory: depth, or extent.
template <bool kDepthOuter, class Load>
__device__ void fill_plain(float (&tile)[kPlainDepth][kPlainTile + 1], Load&& load, int64_t done) {
#pragma unroll
  for (int i = 0; i < kPlainDepth * kPlainTile / kPlainThreads; ++i) {
    const int at = i * kPlainThreads + static_cast<int>(threadIdx.x);
    const int depth = kDepthOuter ? at / kPlainTile : at % kPlainDepth;
    const int extent = kDepthOuter ? at % kPlainTile : at / kPlainDepth;
    tile[depth][extent] = load(extent, done + depth);
  }
}

inline __device__ int plain_row() {
  return static_cast<int>(threadIdx.x) / 16;
}
inline __device__ int plain_col() {
  return static_cast<int>(threadIdx.x) % 16;
}

// sums[i][j] += sum over d < depth, in order, of load_a(row, d) * load_b(col, d), row = plain_row() + 16 i and
// col = plain_col() + 16 j. The loads are asked for any row and col of the tile and for d beyond `depth`, and give 0
// where there is nothing. kDepthOuter: whether what lies side by side in memory differs in row (col), not in d.
template <bool kDepthOuterA, bool kDepthOuterB, class LoadA, class LoadB>
__device__ void plain_product(float (&sums)[kPlainSums][kPlainSums], int64_t depth, LoadA&& load_a, LoadB&& load_b) {
  __shared__ float a_tile[kPlainDepth][kPlainTile + 1], b_tile[kPlainDepth][kPlainTile + 1];
  for (int64_t done = 0; done < depth; done += kPlainDepth) {
    fill_plain<kDepthOuterA>(a_tile, load_a, done);
    fill_plain<kDepthOuterB>(b_tile, load_b, done);
    __syncthreads();
#pragma unroll
    for (int d = 0; d < kPlainDepth; ++d) {
      float b[kPlainSums];
#pragma unroll
      for (int j = 0; j < kPlainSums; ++j) b[j] = b_tile[d][plain_col() + 16 * j];
#pragma unroll
      for (int i = 0; i < kPlainSums; ++i) {
        const float a = a_tile[d][plain_row() + 16 * i];
#pragma unroll
        for (int j = 0; j < kPlainSums; ++j) sums[i][j] += a * b[j];
      }
    }
    __syncthreads();
  }
}

// f(row, col, sum) for all that this thread holds.
template <class F>
__device__ void for_each_plain(const float (&sums)[kPlainSums][kPlainSums], F&& f) {
#pragma unroll
  for (int i = 0; i < kPlainSums; ++i) {
#pragma unroll
    for (int j = 0; j < kPlainSums; ++j) f(plain_row() + 16 * i, plain_col() + 16 * j, sums[i][j]);
  }
}

}  // namespace mhmoe::cuda
