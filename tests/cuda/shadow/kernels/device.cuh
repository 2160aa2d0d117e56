// Stands in the place of kernels/device.cuh when kernels are compiled for the emulator.
#pragma once

#include <tuple>

#include "emulator/simt.h"

namespace mhmoe::cuda {

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulator::dynamic_shared_memory());
}

// Every thread gets its own copy of the arguments, as on a device.
template <class... Params>
cudaError_t start_kernel(const cudaLaunchConfig_t& config, void (*kernel)(Params...), Params... args) {
  struct Call {
    void (*kernel)(Params...);
    std::tuple<Params...> args;
  } call = {kernel, {args...}};
  return emulator::run_grid(
      config,
      [](void* data) {
        const auto& call = *static_cast<const Call*>(data);
        std::apply(call.kernel, call.args);
      },
      &call);
}

}  // namespace mhmoe::cuda
