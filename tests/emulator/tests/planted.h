// Kernels with one planted mistake each, by name.
#pragma once

#include <cuda_runtime_api.h>

#include <string_view>

namespace planted {

constexpr unsigned kThreads = 128;

// Runs one block of the kernel. out, in: [kThreads].
cudaError_t run(std::string_view kernel, unsigned threads, float* out, const float* in);

// The same of a kernel on tensor cores' instructions. in: [2560], 16-byte aligned; out: [128].
cudaError_t run_tensor_core(std::string_view kernel, float* out, const float* in);

}  // namespace planted
