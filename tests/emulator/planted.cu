// Kernels with one planted mistake each, and a right one: the emulator must tell them apart (planted_test.cc).
#include <map>
#include <string_view>

#include "kernels/launch.h"
#include "kernels/reduce.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 128;

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
  auto* tile = dynamic_shared<float>();
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
  if (threadIdx.x % kWarpSize < 20) out[threadIdx.x] = __shfl_xor_sync(kFullWarp, in[threadIdx.x], 1);
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
}  // namespace mhmoe::cuda

// Runs one block of 128 threads of the kernel of this name. out, in: [128].
extern "C" MHMOE_API void mhmoe_planted_run(const char* name, float* out, const float* in) {
  using namespace mhmoe::cuda;
  launch({.grid = 1, .block = kThreads, .shared_bytes = (kThreads + 1) * sizeof(float)}, kKernels.at(name), out, in);
}

// A launch that no device would accept.
extern "C" MHMOE_API void mhmoe_planted_launch_too_large(float* out, const float* in) {
  using namespace mhmoe::cuda;
  launch({.grid = 1, .block = 2048}, right_kernel, out, in);
}
