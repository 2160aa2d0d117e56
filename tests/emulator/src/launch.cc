// Kernel launches: what a driver checks, then the kernel in its turn on the stream.
#include <cstdint>
#include <utility>
#include <vector>

#include "call.h"
#include "device.h"
#include "emulator/engine.h"
#include "emulator/fault.h"
#include "failures.h"
#include "grid.h"
#include "memory.h"
#include "scheduler.h"
#include "streams.h"
#include "text.h"

namespace emulator {
namespace {

constexpr const char* kWhat = "a kernel";

// The allocations that the kernel was given.
std::vector<uint64_t> allocations_of(const KernelCall& kernel) {
  std::vector<uint64_t> numbers;
  for (const void* word : kernel.words) {
    const Allocation* found = memory().find(word);
    if (found == nullptr) continue;
    if (found->freed) throw Fault(text("%s: an argument points to freed memory: %s", kWhat, found->describe().c_str()));
    if (numbers.empty() || numbers.back() != found->number) numbers.push_back(found->number);
  }
  return numbers;
}

cudaError_t check(const cudaLaunchConfig_t& config, const void* function) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool possible = threads > 0 && threads <= kMaxThreads && block.z <= 64 && grid.x > 0 && grid.x <= 0x7fffffff &&
                        grid.y > 0 && grid.y <= 65535 && grid.z > 0 && grid.z <= 65535;
  if (!possible) return cudaErrorInvalidConfiguration;
  if (config.dynamicSmemBytes > allowed_shared_bytes(function)) return cudaErrorInvalidValue;
  return is_supported() ? cudaSuccess : cudaErrorNoKernelImageForDevice;
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, const KernelCall& kernel, std::function<void()> body) {
  return call([&] {
    if (const cudaError_t code = check(config, kernel.function); code != cudaSuccess) return code;
    Failures& planned = failures();
    if (++planned.launches == planned.launch) return cudaErrorLaunchOutOfResources;
    if (planned.launches == planned.fault) {
      return submit(config.stream, kWhat, [] { break_device(cudaErrorIllegalAddress); });
    }
    cudaLaunchConfig_t kept = config;
    kept.attrs = nullptr, kept.numAttrs = 0;
    return submit(config.stream, kWhat, [kept, numbers = allocations_of(kernel), body = std::move(body)] {
      for (const uint64_t number : numbers) memory().expect_alive(kWhat, number);
      run_grid(kept, body);
    });
  });
}

}  // namespace emulator
