#include "cuda/cuda_check.h"

#include <algorithm>
#include <string_view>

namespace mhmoe::cuda {

void fail_call(cudaError_t code, const char* call, const char* file, int line) {
  int device = -1;
  const bool known = cudaGetDevice(&device) == cudaSuccess;
  cudaGetLastError();  // a refused call must not be reported again by the next one
  std::string_view name(file);
  name.remove_prefix(std::min(name.size(), name.find_last_of('/') + 1));
  fail(code == cudaErrorMemoryAllocation ? ExitCode::kMemory : ExitCode::kDevice,
       "CUDA: {} at {}:{} on device {}: {} ({})", call, name, line, known ? std::to_string(device) : "unknown",
       cudaGetErrorString(code), cudaGetErrorName(code));
}

}  // namespace mhmoe::cuda
