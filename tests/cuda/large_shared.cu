// A kernel that may need more shared memory than every kernel has (launch_test.cc).
#include "kernels/launch.h"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 128;

// Reads dynamic shared memory up to its last byte.
__global__ void large_shared_kernel(float* out, const float* in, int floats) {
  auto* tile = dynamic_shared<float>();
  tile[floats - 1 - static_cast<int>(threadIdx.x)] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[floats - kThreads + static_cast<int>(threadIdx.x)];
}

}  // namespace
}  // namespace mhmoe::cuda

// out[t] = in[127 - t] by a block with this much shared memory.
extern "C" MHMOE_API void mhmoe_test_large_shared(size_t shared_bytes, float* out, const float* in) {
  using namespace mhmoe::cuda;
  launch({.grid = 1, .block = kThreads, .shared_bytes = shared_bytes}, large_shared_kernel, out, in,
         shared_bytes / sizeof(float));
  MHMOE_CUDA_CHECK(cudaDeviceSynchronize());
}
