#include "cuda/identity.h"

#include "cuda/cuda_check.h"

namespace mhmoe::cuda {

const char* backend_name() {
  return "cuda";
}

std::string context_name(int ordinal) {
  cudaDeviceProp properties{};
  MHMOE_CUDA_CHECK(cudaGetDeviceProperties(&properties, ordinal));
  return fmt::format("cuda:{} {}", ordinal, properties.name);
}

}  // namespace mhmoe::cuda
