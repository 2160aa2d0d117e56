// What all calls of the CUDA runtime have in common. The runtime is one lock, one device for all ordinals, and no
// thread-local variables: those of a module are its kernels' shared memory.
#pragma once

#include <cuda_runtime_api.h>

#include <mutex>

namespace emulator {

std::recursive_mutex& runtime_mutex();

// Becomes the calling thread's last error unless it is success. Returns the code.
cudaError_t remember(cudaError_t code);

// Why no call can work: there is no driver or no device, or a kernel broke the device.
cudaError_t device_state();
// An error that no later call recovers from, as after a kernel's illegal access.
void break_device(cudaError_t code);
bool device_is_broken();

template <class Body>
cudaError_t call(Body&& body) {
  const std::lock_guard lock(runtime_mutex());
  const cudaError_t state = device_state();
  return remember(state == cudaSuccess ? body() : state);
}

// The same for a call that releases something, which it does also when the device is broken.
template <class Body>
cudaError_t release_call(Body&& body) {
  const std::lock_guard lock(runtime_mutex());
  const cudaError_t code = body(), state = device_state();
  return remember(state == cudaSuccess ? code : state);
}

}  // namespace emulator
