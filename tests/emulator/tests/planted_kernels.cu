// The planted mistakes (planted_test.cc says who finds them), and right kernels beside them.
#include "planted.h"

namespace planted {
namespace {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kTiles = 4;

__device__ float* dynamic_tile() {
  return reinterpret_cast<float*>(emulator::dynamic_shared_memory());
}

float same(const float* in, unsigned i) {
  return in[i];
}
float lower_neighbour(const float* in, unsigned i) {
  return in[i == 0 ? 0 : i - 1];
}
float lower_neighbour_around(const float* in, unsigned i) {
  return in[(i + kThreads - 1) % kThreads];
}
float other_of_a_pair(const float* in, unsigned i) {
  return in[i ^ 1];
}
float sum_of_tiles(const float* in, unsigned /*i*/) {
  float sum = 0;
  for (int i = 0; i < kTiles * static_cast<int>(kThreads); ++i) sum += in[i];
  return sum;
}

// out[t] = in[t - 1] through shared memory, in[0] for the first.
__global__ void right_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x - 1];
}

// Whatever orders memory between threads, in several blocks that share nothing but an atomic counter.
__global__ void right_blocks_kernel(float* out, const float* in) {
  __shared__ float tile[32];
  auto* sums = dynamic_tile();
  const unsigned quarter = blockIdx.x * 32 + threadIdx.x % 32;
  for (int round = 0; round < 3; ++round) {
    if (threadIdx.x < 32) {
      tile[threadIdx.x] = in[quarter];
      __syncwarp();
      sums[threadIdx.x] = tile[threadIdx.x ^ 1] + static_cast<float>(round);
    }
    __syncthreads();
    if (threadIdx.x >= 96) atomicExch(out + quarter, sums[threadIdx.x % 32 ^ 1] - static_cast<float>(round));
    __syncthreads();
  }
  if (threadIdx.x == 0) atomicAdd(out + kOutputs - 1, 0.0f);
}

__global__ void missing_barrier_wrap_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[(threadIdx.x + kThreads - 1) % kThreads];
}

// Threads in forward order do this right.
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

// The next tile is stored while others still read this one.
__global__ void missing_trailing_barrier_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  float sum = 0;
  for (int i = 0; i < kTiles; ++i) {
    tile[threadIdx.x] = in[i * static_cast<int>(kThreads) + static_cast<int>(threadIdx.x)];
    __syncthreads();
    for (const float value : tile) sum += value;
  }
  out[threadIdx.x] = sum;
}

// Lanes pass values through shared memory and count on running in step.
__global__ void missing_syncwarp_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// A shuffle waits for the warp's lanes, but orders no memory.
__global__ void shuffle_for_syncwarp_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x] = in[threadIdx.x];
  __shfl_sync(kFullWarp, 0, 0);
  out[threadIdx.x] = tile[threadIdx.x ^ 1];
}

// The last element is never written.
__global__ void unwritten_shared_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads + 1];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

template <class T>
__global__ void unwritten_template_shared_kernel(T* out, const T* in) {
  __shared__ T tile[kThreads + 1];
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

__global__ void unwritten_dynamic_shared_kernel(float* out, const float* in) {
  auto* tile = dynamic_tile();
  tile[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x + 1];
}

__global__ void static_shared_overrun_kernel(float* out, const float* in) {
  __shared__ float tile[kThreads];
  tile[threadIdx.x + 1] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x];
}

template <class T>
__global__ void template_shared_overrun_kernel(T* out, const T* in) {
  __shared__ T tile[kThreads];
  tile[threadIdx.x + 1] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x];
}

__global__ void dynamic_shared_overrun_kernel(float* out, const float* in) {
  auto* tile = dynamic_tile();
  tile[threadIdx.x + 1] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = threadIdx.x == 0 ? in[0] : tile[threadIdx.x];
}

__global__ void global_overrun_kernel(float* out, const float* in) {
  out[threadIdx.x + 1] = in[threadIdx.x];
}

__global__ void local_overrun_kernel(float* out, const float* in) {
  float values[4] = {};
  values[static_cast<int>(in[0]) + 3] = 1;
  out[threadIdx.x] = values[threadIdx.x % 4];
}

__global__ void misaligned_load_kernel(float* out, const float* in) {
  const float4 values = *reinterpret_cast<const float4*>(in + 1);
  out[threadIdx.x] = values.x;
}

__global__ void misaligned_store_kernel(float* out, const float* in) {
  *reinterpret_cast<float4*>(out + 4 * threadIdx.x + 1) = make_float4(in[0], in[1], in[2], in[3]);
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

__global__ void barrier_in_a_branch_kernel(float* out, const float* in) {
  if (threadIdx.x % 32 < 20) __syncthreads();
  out[threadIdx.x] = __shfl_sync(kFullWarp, in[threadIdx.x], 1);
}

__global__ void divergent_shuffle_kernel(float* out, const float* in) {
  if (threadIdx.x % 32 < 20) out[threadIdx.x] = __shfl_xor_sync(kFullWarp, in[threadIdx.x], 1);
}

__global__ void shuffle_after_exit_kernel(float* out, const float* in) {
  if (threadIdx.x >= 20) return;
  out[threadIdx.x] = __shfl_down_sync(kFullWarp, in[threadIdx.x], 1);
}

// Every block counts in the same place, one after the other where one block runs at a time.
__global__ void race_between_blocks_kernel(float* out, const float* in) {
  if (threadIdx.x == 0) out[0] += in[0];
}

constexpr size_t kTileBytes = kThreads * sizeof(float);

}  // namespace

const std::map<std::string, Kernel>& kernels() {
  static const std::map<std::string, Kernel> all = {
      {"right", {.kernel = right_kernel, .expected = lower_neighbour}},
      {"right_blocks", {.kernel = right_blocks_kernel, .blocks = 4, .dynamic_bytes = kTileBytes, .expected = same}},
      {"missing_barrier", {.kernel = missing_barrier_kernel, .expected = lower_neighbour}},
      {"missing_barrier_wrap", {.kernel = missing_barrier_wrap_kernel, .expected = lower_neighbour_around}},
      {"missing_barrier_template", {.kernel = missing_barrier_template_kernel<float>, .expected = lower_neighbour}},
      {"missing_trailing_barrier", {.kernel = missing_trailing_barrier_kernel, .expected = sum_of_tiles}},
      {"missing_syncwarp", {.kernel = missing_syncwarp_kernel, .expected = other_of_a_pair}},
      {"shuffle_for_syncwarp", {.kernel = shuffle_for_syncwarp_kernel, .expected = other_of_a_pair}},
      {"unwritten_shared", {.kernel = unwritten_shared_kernel}},
      {"unwritten_template_shared", {.kernel = unwritten_template_shared_kernel<float>}},
      {"unwritten_dynamic_shared",
       {.kernel = unwritten_dynamic_shared_kernel, .dynamic_bytes = kTileBytes + sizeof(float)}},
      {"static_shared_overrun", {.kernel = static_shared_overrun_kernel, .expected = lower_neighbour}},
      {"template_shared_overrun", {.kernel = template_shared_overrun_kernel<float>, .expected = lower_neighbour}},
      {"dynamic_shared_overrun",
       {.kernel = dynamic_shared_overrun_kernel, .dynamic_bytes = kTileBytes, .expected = lower_neighbour}},
      {"global_overrun", {.kernel = global_overrun_kernel}},
      {"local_overrun", {.kernel = local_overrun_kernel}},
      {"misaligned_load", {.kernel = misaligned_load_kernel}},
      {"misaligned_store", {.kernel = misaligned_store_kernel, .threads = 8}},
      {"divergent_barrier", {.kernel = divergent_barrier_kernel}},
      {"barrier_in_a_branch", {.kernel = barrier_in_a_branch_kernel}},
      {"divergent_shuffle", {.kernel = divergent_shuffle_kernel}},
      {"shuffle_after_exit", {.kernel = shuffle_after_exit_kernel}},
      {"race_between_blocks", {.kernel = race_between_blocks_kernel, .blocks = 12}},
  };
  return all;
}

cudaError_t launch(const Kernel& kernel, float* out, const float* in) {
  cudaLaunchConfig_t config{};
  config.gridDim = kernel.blocks;
  config.blockDim = kernel.threads;
  config.dynamicSmemBytes = kernel.dynamic_bytes;
  return cudaLaunchKernelEx(&config, kernel.kernel, out, in);
}

}  // namespace planted
