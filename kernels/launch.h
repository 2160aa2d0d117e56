// The one way to start a kernel.
#pragma once

#include <cuda_runtime.h>

#include <limits>
#include <type_traits>

#include "cuda/cuda_check.h"
#include "device/context.h"
#include "kernels/device.cuh"

namespace mhmoe::cuda {

constexpr int kWarpSize = 32;
// Shared memory of a block: what every kernel may have, and the most that any supported device gives to one that asks.
constexpr size_t kFreeSharedBytes = size_t{48} << 10, kMaxSharedBytes = size_t{227} << 10;

struct LaunchConfig {
  dim3 grid;
  dim3 block;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
};

inline cudaStream_t stream_of(const Context& ctx) {
  return static_cast<cudaStream_t>(ctx.compute_stream());
}

// ceil(items / items_per_block), as a grid dimension.
inline unsigned block_count(int64_t items, int64_t items_per_block) {
  const int64_t blocks = (items + items_per_block - 1) / items_per_block;
  MHMOE_CHECK(blocks <= std::numeric_limits<int32_t>::max(), "{} items need a grid of {} blocks", items, blocks);
  return static_cast<unsigned>(blocks);
}

// Asks for a block's dynamic shared memory beyond what every kernel may have. Throws Error(kDevice) where the device
// has less.
inline void request_shared_memory(const void* kernel, size_t bytes) {
  if (bytes <= kFreeSharedBytes) return;
  MHMOE_CHECK(bytes <= kMaxSharedBytes, "a kernel wants {} bytes of shared memory a block, allowed: {}", bytes,
              kMaxSharedBytes);
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)) ==
      cudaSuccess) {
    return;
  }
  cudaGetLastError();  // a refused call must not be reported again by the next one
  int device = 0, most = 0;
  MHMOE_CUDA_CHECK(cudaGetDevice(&device));
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  fail(ExitCode::kDevice,
       "CUDA: a kernel needs {} bytes of shared memory a block, device {} has {}; use a GPU that has as much, or "
       "--device cpu",
       bytes, device, most);
}

// Starts kernel(args...) on the stream; arguments are converted to the parameters' types here. An empty grid does
// nothing. Throws Error(kDevice) when the launch is refused.
template <class... Params, class... Args>
void launch(const LaunchConfig& config, void (*kernel)(Params...), Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args), "one argument a parameter of the kernel");
  static_assert((std::is_trivially_copyable_v<Params> && ...), "kernel parameters are copied to the device as bytes");
  if (config.grid.x == 0 || config.grid.y == 0 || config.grid.z == 0) return;
  request_shared_memory(reinterpret_cast<const void*>(kernel), config.shared_bytes);
  cudaLaunchConfig_t native{};
  native.gridDim = config.grid;
  native.blockDim = config.block;
  native.dynamicSmemBytes = config.shared_bytes;
  native.stream = config.stream;
  MHMOE_CUDA_CHECK(cudaLaunchKernelEx(&native, kernel, static_cast<Params>(args)...));
}

}  // namespace mhmoe::cuda
