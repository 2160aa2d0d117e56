#include "stream_kernels.h"

namespace planted {
namespace {

__global__ void add_kernel(float* data, int count, float value) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) data[i] += value;
}

__global__ void twice_kernel(float* out, const float* in, int count) {
  const auto i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) out[i] = 2 * in[i];
}

cudaLaunchConfig_t config_for(int count, cudaStream_t stream) {
  constexpr unsigned kThreads = 64;
  cudaLaunchConfig_t config{};
  config.gridDim = (static_cast<unsigned>(count) + kThreads - 1) / kThreads;
  config.blockDim = kThreads;
  config.stream = stream;
  return config;
}

}  // namespace

cudaError_t add(float* data, int count, float value, cudaStream_t stream) {
  const auto config = config_for(count, stream);
  return cudaLaunchKernelEx(&config, add_kernel, data, count, value);
}

cudaError_t twice(float* out, const float* in, int count, cudaStream_t stream) {
  const auto config = config_for(count, stream);
  return cudaLaunchKernelEx(&config, twice_kernel, out, in, count);
}

}  // namespace planted
