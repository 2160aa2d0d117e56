#include "cuda/identity.h"

#include "cuda/cuda_check.h"

namespace mhmoe::cuda {

const char* backend_name() {
  return "cuda";
}

std::string context_name(int ordinal) {
  return fmt::format("cuda:{} {}", ordinal, device_model(ordinal));
}

std::string device_model(int ordinal) {
  cudaDeviceProp properties{};
  MHMOE_CUDA_CHECK(cudaGetDeviceProperties(&properties, ordinal));
  return properties.name;
}

}  // namespace mhmoe::cuda
