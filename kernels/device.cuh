// What only the device's own compiler can say. The emulated build (tests/cuda) puts its own file in this one's place.
#pragma once

#include <cuda_runtime.h>

namespace mhmoe::cuda {

// The block's dynamic shared memory, LaunchConfig::shared_bytes of it, 16-byte aligned.
template <class T>
__device__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared_memory[];
  return reinterpret_cast<T*>(dynamic_shared_memory);
}

}  // namespace mhmoe::cuda
