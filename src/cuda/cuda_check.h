// Every call of the CUDA runtime goes through MHMOE_CUDA_CHECK.
#pragma once

#include <cuda_runtime.h>

#include "core/error.h"

namespace mhmoe::cuda {

[[noreturn]] void fail_call(cudaError_t code, const char* call, const char* file, int line);

inline void check_call(cudaError_t code, const char* call, const char* file, int line) {
  if (code != cudaSuccess) [[unlikely]] {
    fail_call(code, call, file, line);
  }
}

}  // namespace mhmoe::cuda

// Throws Error(kDevice), or Error(kMemory) when memory ran out, with the call, its place, the device and CUDA's reason.
#define MHMOE_CUDA_CHECK(call) ::mhmoe::cuda::check_call((call), #call, __FILE__, __LINE__)
