// Kernel launches. Included by simt.h.
#pragma once

#include <cuda_runtime_api.h>

#include <tuple>
#include <type_traits>

#include "emulator/engine.h"

// Arguments are converted to the parameters' types here, and every thread gets its own copy, as on a device.
template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args), "one argument a parameter of the kernel");
  static_assert((std::is_trivially_copyable_v<Params> && ...), "parameters are copied to the device as bytes");
  return emulator::launch(
      *config, reinterpret_cast<const void*>(kernel),
      [kernel, copies = std::tuple<Params...>(static_cast<Params>(args)...)] { std::apply(kernel, copies); });
}
