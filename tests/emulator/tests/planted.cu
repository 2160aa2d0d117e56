// Kernels with one planted mistake each, and a right one: the emulator must tell them apart (planted_test.cc).
#include "planted.h"

#include <map>

namespace planted {
namespace {

constexpr unsigned kFullWarp = 0xffffffffu;

// out[t] = in[t - 1] through shared memory, in[0] for the first.
__global__ void right_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x - 1];
}

__global__ void missing_barrier_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x - 1];
}

// The same in a template, whose shared memory lies elsewhere in the program.
template <class T>
__global__ void missing_barrier_template_kernel(T* out, const T* in) {
  __shared__ T tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x - 1];
}

// The last element is never written.
template <class T>
__global__ void unwritten_shared_kernel(T* out, const T* in) {
  __shared__ T tile[kThreads + 1];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

__global__ void unwritten_dynamic_shared_kernel(float* out, const float* in) {
  auto* tile = reinterpret_cast<float*>(emulator::dynamic_shared_memory());
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

__global__ void divergent_barrier_kernel(float* out, const float* in) {
  if (threadIdx.x < kThreads / 2) {
    __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
  } else {
    __syncthreads();
    out[threadIdx.x] = -in[threadIdx.x];
  }
}

__global__ void divergent_shuffle_kernel(float* out, const float* in) {
  if (threadIdx.x % warpSize < 20) out[threadIdx.x] = __shfl_xor_sync(kFullWarp, in[threadIdx.x], 1);
}

__global__ void shuffle_after_exit_kernel(float* out, const float* in) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_down_sync(kFullWarp, in[threadIdx.x], 1);
}

// Lanes pass values through shared memory and count on running in step.
__global__ void missing_warp_barrier_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

using Kernel = void (*)(float*, const float*);
const std::map<std::string_view, Kernel> kKernels = {
    {"right", right_kernel},
    {"missing_barrier", missing_barrier_kernel},
    {"missing_barrier_template", missing_barrier_template_kernel<float>},
    {"unwritten_shared", unwritten_shared_kernel<float>},
    {"unwritten_dynamic_shared", unwritten_dynamic_shared_kernel},
    {"divergent_barrier", divergent_barrier_kernel},
    {"divergent_shuffle", divergent_shuffle_kernel},
    {"shuffle_after_exit", shuffle_after_exit_kernel},
    {"missing_warp_barrier", missing_warp_barrier_kernel},
};

}  // namespace

cudaError_t run(std::string_view kernel, unsigned threads, float* out, const float* in) {
  cudaLaunchConfig_t config{};
  config.gridDim = 1;
  config.blockDim = threads;
  config.dynamicSmemBytes = (kThreads + 1) * sizeof(float);
  return cudaLaunchKernelEx(&config, kKernels.at(kernel), out, in);
}

}  // namespace planted
