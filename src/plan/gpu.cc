#include "plan/gpu.h"

#include <array>

#include "core/error.h"

namespace mhmoe::plan {
namespace {

// NVIDIA's data sheets "H100 Tensor Core GPU", "H200 Tensor Core GPU" and "A100 Tensor Core GPU", columns of the SXM
// modules; bf16 there "with sparsity" for H100 and H200, so half of it. PCIe cards reach less. NVLink's figures there
// are of both ways together. Adapters: one of 400 Gb/s a GPU in DGX H100 and H200, one of 200 Gb/s in DGX A100.
constexpr std::array kGpus = {
    Gpu{{3.35e12, 989.5e12, 67e12}, "h100", "H100 SXM 80 GB", "H100", 80e9, 132, 450e9, 50e9},
    Gpu{{4.8e12, 989.5e12, 67e12}, "h200", "H200 SXM 141 GB", "H200", 141e9, 132, 450e9, 50e9},
    Gpu{{2.039e12, 312e12, 19.5e12}, "a100", "A100 SXM 80 GB", "A100", 80e9, 108, 300e9, 25e9},
};

}  // namespace

const Gpu& find_gpu(std::string_view key) {
  for (const Gpu& gpu : kGpus) {
    if (gpu.key == key) return gpu;
  }
  fail(ExitCode::kUsage, "--gpu {}: expected h100, h200 or a100", key);
}

const Gpu* gpu_of_device(std::string_view device_name) {
  for (const Gpu& gpu : kGpus) {
    if (device_name.find(gpu.name_part) != std::string_view::npos) return &gpu;
  }
  return nullptr;
}

}  // namespace mhmoe::plan
