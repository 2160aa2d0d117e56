#include "kernels/partials.h"

#include "kernels/launch.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void add_partials_kernel(float* total, const float* partial, int64_t chunks, int64_t cols) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= cols) return;
  float sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * cols + c];
  total[c] += sum;
}

}  // namespace

void add_partials(Context& ctx, const Tensor& total, const Tensor& partial) {
  launch({.grid = block_count(total.count(), kThreads), .block = kThreads, .stream = stream_of(ctx)},
         add_partials_kernel, elements<float>(total), elements<const float>(partial), partial.rows(), total.count());
}

}  // namespace mhmoe::cuda
