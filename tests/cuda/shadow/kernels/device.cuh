// Stands in the place of kernels/device.cuh when kernels are compiled for the emulator.
#pragma once

#include "emulator/simt.h"

namespace mhmoe::cuda {

template <class T>
T* dynamic_shared() {
  return reinterpret_cast<T*>(emulator::dynamic_shared_memory());
}

}  // namespace mhmoe::cuda
