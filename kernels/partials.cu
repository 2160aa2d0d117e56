#include "kernels/partials.h"

#include "kernels/launch.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

// Chunks are added in order within segments, and the segments in order.
__global__ void add_partials_kernel(float* total, const float* partial, int64_t chunks, int64_t cols) {
  __shared__ float segment_sum[kMostSegments][kTile];
  const int64_t c = int64_t{blockIdx.x} * kTile + threadIdx.x;
  const auto [begin, end] = segment_of(chunks);
  float sum = 0;
  if (c < cols) {
    for (int64_t chunk = begin; chunk < end; ++chunk) sum += partial[chunk * cols + c];
  }
  segment_sum[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y > 0 || c >= cols) return;
  for (unsigned s = 1; s < blockDim.y; ++s) sum += segment_sum[s][threadIdx.x];
  total[c] += sum;
}

}  // namespace

void add_partials(Context& ctx, const Tensor& total, const Tensor& partial) {
  launch({.grid = block_count(total.count(), kTile), .block = tile_block(partial.rows()), .stream = stream_of(ctx)},
         add_partials_kernel, elements<float>(total), elements<const float>(partial), partial.rows(), total.count());
}

}  // namespace mhmoe::cuda
