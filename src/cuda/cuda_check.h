// Every call of the CUDA runtime goes through MHMOE_CUDA_CHECK; CUDA's libraries have such a macro each on fail_call.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

#include "core/error.h"

namespace mhmoe::cuda {

// Throws Error(code) that says which call failed, where, on which rank and device and why: the library's own words.
// Where a kernel's fault has made the device unusable, says so once, with the op that was started last.
[[noreturn]] void fail_call(ExitCode code, const char* call, const char* file, int line, std::string_view reason);
[[noreturn]] void fail_call(cudaError_t code, const char* call, const char* file, int line);

inline void check_call(cudaError_t code, const char* call, const char* file, int line) {
  if (code != cudaSuccess) [[unlikely]] {
    fail_call(code, call, file, line);
  }
}

// A release that failed in a destructor, which cannot throw: one line of log, none when the device is known to be
// unusable, since then every call fails.
void report_failed_release(const char* call, const char* reason);

}  // namespace mhmoe::cuda

// Throws Error(kDevice), or Error(kMemory) when memory ran out, with the call, its place, rank, device and CUDA's
// reason.
#define MHMOE_CUDA_CHECK(call) ::mhmoe::cuda::check_call((call), #call, __FILE__, __LINE__)
