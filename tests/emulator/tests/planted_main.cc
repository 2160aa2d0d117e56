// emulator_planted NAME: runs one planted kernel and says what came of it: "right", "wrong", "not-a-number" or the
// fault. A sanitizer that finds the mistake speaks for itself.
#include <cmath>
#include <cstdio>
#include <vector>

#include "emulator/fault.h"
#include "planted.h"

namespace planted {
namespace {

const char* judge(const Kernel& kernel, const std::vector<float>& out, const std::vector<float>& in) {
  for (const float value : out) {
    if (std::isnan(value)) return "not-a-number";
  }
  if (kernel.expected == nullptr) return "right";
  for (unsigned i = 0; i < kOutputs; ++i) {
    if (out[i] != kernel.expected(in.data(), i)) return "wrong";
  }
  return "right";
}

int run(const char* name) {
  auto all = kernels();
  all.insert(tensor_core_kernels().begin(), tensor_core_kernels().end());
  const auto found = all.find(name);
  if (found == all.end()) {
    std::printf("no kernel %s\n", name);
    return 2;
  }
  std::vector<float> in(kInputs), out(kOutputs, 0.0f);
  for (size_t i = 0; i < in.size(); ++i) in[i] = static_cast<float>(i + 1);
  void *device_in = nullptr, *device_out = nullptr;
  cudaMalloc(&device_in, kInputs * sizeof(float));
  cudaMalloc(&device_out, kOutputs * sizeof(float));
  cudaMemcpyAsync(device_in, in.data(), kInputs * sizeof(float), cudaMemcpyHostToDevice, nullptr);
  cudaMemsetAsync(device_out, 0, kOutputs * sizeof(float), nullptr);
  try {
    launch(found->second, static_cast<float*>(device_out), static_cast<const float*>(device_in));
    cudaMemcpyAsync(out.data(), device_out, kOutputs * sizeof(float), cudaMemcpyDeviceToHost, nullptr);
    cudaStreamSynchronize(nullptr);
    std::printf("%s\n", judge(found->second, out, in));
  } catch (const emulator::Fault& fault) {
    std::printf("%s\n", fault.what());
  }
  cudaFree(device_in);
  cudaFree(device_out);
  return 0;
}

}  // namespace
}  // namespace planted

int main(int count, char** arguments) {
  return planted::run(count == 2 ? arguments[1] : "");
}
