// Rows shared out over a block: a row gets as many neighbouring threads as it has packs, as a power of two.
#pragma once

#include "kernels/launch.h"

namespace mhmoe::cuda {

// For kernels of blocks of `threads` whose threads loop over the packs (kWidth elements each) of their row.
struct RowLanes {
  int shift;  // lanes a row = 1 << shift

  RowLanes(int64_t cols, int width, int threads) : shift(0) {
    const int64_t packs = (cols + width - 1) / width;
    while ((int64_t{1} << shift) < packs && (2 << shift) <= threads) ++shift;
  }
  unsigned rows_per_block(int threads) const { return static_cast<unsigned>(threads >> shift); }

  __device__ int lanes() const { return 1 << shift; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) & (lanes() - 1); }
  __device__ int64_t row() const { return int64_t{blockIdx.x} * (blockDim.x >> shift) + (threadIdx.x >> shift); }
};

// Warps of a block that each keep so many bytes in shared memory, beside the block's own `common` ones: at most 8,
// fewer where a block would take more than half of what one multiprocessor of Hopper has. launch() refuses what even
// one warp has no room for: rows of some 20 thousand elements.
inline int64_t warps_that_keep(int64_t bytes_a_warp, int64_t common = 0) {
  constexpr int64_t kBlockBytes = int64_t{96} << 10;
  int64_t warps = 8;
  while (warps > 1 && warps * bytes_a_warp + common > kBlockBytes) warps /= 2;
  return warps;
}

}  // namespace mhmoe::cuda
