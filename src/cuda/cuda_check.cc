#include "cuda/cuda_check.h"

#include <algorithm>
#include <string_view>

namespace mhmoe::cuda {

void fail_call(ExitCode code, const char* call, const char* file, int line, std::string_view reason) {
  int device = -1;
  const bool known = cudaGetDevice(&device) == cudaSuccess;
  cudaGetLastError();  // a refused call must not be reported again by the next one
  std::string_view name(file);
  name.remove_prefix(std::min(name.size(), name.find_last_of('/') + 1));
  fail(code, "CUDA: {} at {}:{} on device {}: {}", call, name, line, known ? std::to_string(device) : "unknown",
       reason);
}

void fail_call(cudaError_t code, const char* call, const char* file, int line) {
  fail_call(code == cudaErrorMemoryAllocation ? ExitCode::kMemory : ExitCode::kDevice, call, file, line,
            fmt::format("{} ({})", cudaGetErrorString(code), cudaGetErrorName(code)));
}

}  // namespace mhmoe::cuda
