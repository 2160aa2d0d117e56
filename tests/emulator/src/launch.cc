// Kernel launches: what a driver checks, then the kernel in its turn on the stream.
#include <cstdint>
#include <utility>

#include "call.h"
#include "device.h"
#include "emulator/engine.h"
#include "failures.h"
#include "grid.h"
#include "scheduler.h"
#include "streams.h"

namespace emulator {
namespace {

constexpr const char* kWhat = "a kernel";

cudaError_t check(const cudaLaunchConfig_t& config, const void* kernel) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool possible = threads > 0 && threads <= kMaxThreads && block.z <= 64 && grid.x > 0 && grid.x <= 0x7fffffff &&
                        grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
  if (!possible) return cudaErrorInvalidConfiguration;
  if (config.dynamicSmemBytes > allowed_shared_bytes(kernel)) return cudaErrorInvalidValue;
  return is_supported() ? cudaSuccess : cudaErrorNoKernelImageForDevice;
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body) {
  return call([&] {
    if (const cudaError_t code = check(config, kernel); code != cudaSuccess) return code;
    Failures& planned = failures();
    if (++planned.launches == planned.launch) return cudaErrorLaunchOutOfResources;
    if (planned.launches == planned.fault) {
      return submit(config.stream, kWhat, [] { break_device(cudaErrorIllegalAddress); });
    }
    cudaLaunchConfig_t kept = config;
    kept.attrs = nullptr, kept.numAttrs = 0;
    return submit(config.stream, kWhat, [kept, body = std::move(body)] { run_grid(kept, body); });
  });
}

}  // namespace emulator
