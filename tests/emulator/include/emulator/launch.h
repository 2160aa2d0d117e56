// Kernel launches. Included by simt.h.
#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <tuple>
#include <type_traits>

#include "emulator/engine.h"

namespace emulator {

template <class T>
void append_words(std::vector<const void*>& words, const T& parameter) {
  static_assert(std::is_trivially_copyable_v<T>, "parameters are copied to the device as bytes");
  for (size_t at = 0; at + sizeof(void*) <= sizeof(T); at += sizeof(void*)) {
    const void* word = nullptr;
    std::memcpy(&word, reinterpret_cast<const std::byte*>(&parameter) + at, sizeof(word));
    words.push_back(word);
  }
}

}  // namespace emulator

// Arguments are converted to the parameters' types here, and every thread gets its own copy, as on a device.
template <class... Params, class... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...), Args&&... args) {
  static_assert(sizeof...(Params) == sizeof...(Args), "one argument a parameter of the kernel");
  std::tuple<Params...> copies(static_cast<Params>(args)...);
  emulator::KernelCall call{reinterpret_cast<const void*>(kernel), {}};
  std::apply([&call](const auto&... parameters) { (emulator::append_words(call.words, parameters), ...); }, copies);
  return emulator::launch(*config, call, [kernel, copies] { std::apply(kernel, copies); });
}
