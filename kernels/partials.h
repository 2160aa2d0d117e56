// The second half of a sum over rows: the first writes one partial sum a fixed chunk of rows.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>

#include "device/context.h"

namespace mhmoe::cuda {

// A block that adds up chunks: kTile columns and, for each, threads that share its chunks.
constexpr int kTile = 32;
constexpr int kMostSegments = 16;
inline dim3 tile_block(int64_t chunks) {
  return {kTile, static_cast<unsigned>(std::clamp<int64_t>(chunks, 1, kMostSegments))};
}

// The chunks of one of the block's threads: those of equal threadIdx.y share a segment.
struct Segment {
  int64_t begin, end;
};
__device__ inline Segment segment_of(int64_t chunks) {
  const int64_t length = (chunks + blockDim.y - 1) / blockDim.y, begin = length * threadIdx.y;
  return {begin, begin + length < chunks ? begin + length : chunks};
}

// total[c] += sum over chunks of partial[chunk, c], in an order that only their number decides. total: f32 [cols];
// partial: f32 [chunks, cols].
void add_partials(Context& ctx, const Tensor& total, const Tensor& partial);

}  // namespace mhmoe::cuda
