// Kernels with one planted mistake each, by name, and what a right one would compute.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace planted {

constexpr unsigned kThreads = 128;
constexpr size_t kInputs = 2560, kOutputs = 128;

struct Kernel {
  void (*kernel)(float* out, const float* in);  // in: [kInputs], out: [kOutputs], both 256-byte aligned
  unsigned blocks = 1, threads = kThreads;
  size_t dynamic_bytes = 0;
  // out[i] as it should be; `in` alone decides it.
  float (*expected)(const float* in, unsigned i) = nullptr;
};

const std::map<std::string, Kernel>& kernels();
// Those on tensor cores' instructions and cp.async.
const std::map<std::string, Kernel>& tensor_core_kernels();

cudaError_t launch(const Kernel& kernel, float* out, const float* in);

}  // namespace planted
