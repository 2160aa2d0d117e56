#include "cuda/device.h"

#include <string>

#include "core/rank.h"
#include "cuda/cuda_check.h"
#include "kernels/kernels.h"

namespace mhmoe::cuda {
namespace {

constexpr int kOldestMajor = 8;  // tensor cores with bf16, cp.async

// "13.0" of 13000.
std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string driver_reason() {
  int driver = 0, needed = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&needed);
  if (driver == 0) {
    return fmt::format("driver missing (no libcuda.so.1): install NVIDIA's driver for CUDA {} or newer",
                       version_text(needed));
  }
  return fmt::format("driver too old: it is for CUDA {}, this program needs CUDA {}: install a newer NVIDIA driver",
                     version_text(driver), version_text(needed));
}

// A launcher that shows every process one device shows each another one, all as device 0.
int ordinal_among(int devices, int rank) {
  return devices == 1 ? 0 : rank;
}

// Whether this build has code for the device, which is asked of one kernel; without it every launch would fail.
std::string build_reason(int ordinal, int major, int minor) {
  cudaFuncAttributes attributes{};
  cudaError_t code = cudaSetDevice(ordinal);
  if (code == cudaSuccess) code = cudaFuncGetAttributes(&attributes, any_kernel());
  if (code == cudaSuccess) return "";
  cudaGetLastError();
  switch (code) {
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorUnsupportedPtxVersion:
      return fmt::format(
          "this build has no code for compute capability {0}.{1}, which device {2} has: build it with "
          "-DCMAKE_CUDA_ARCHITECTURES={0}{1}",
          major, minor, ordinal);
    default:
      return fmt::format("device {}: {} ({})", ordinal, cudaGetErrorString(code), cudaGetErrorName(code));
  }
}

std::string device_reason(int devices) {
  const int ordinal = ordinal_among(devices, local_rank());
  if (ordinal >= devices) {
    return fmt::format(
        "process {} of this machine has no device of its own: {} are visible; start one process a device, or let each "
        "see only its own (CUDA_VISIBLE_DEVICES)",
        ordinal, devices);
  }
  int major = 0, minor = 0;
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, ordinal));
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, ordinal));
  if (major < kOldestMajor) {
    return fmt::format("device {} has compute capability {}.{}, allowed: {}.0 and newer", ordinal, major, minor,
                       kOldestMajor);
  }
  return build_reason(ordinal, major, minor);
}

// The count is not touched when the call fails, so only the code tells.
std::string reason() {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code == cudaSuccess && devices > 0) return device_reason(devices);
  cudaGetLastError();
  switch (code) {
    case cudaSuccess:
    case cudaErrorNoDevice:
      return "the driver knows no device: look at nvidia-smi and CUDA_VISIBLE_DEVICES";
    case cudaErrorInsufficientDriver:
      return driver_reason();
    default:
      return fmt::format("{} ({})", cudaGetErrorString(code), cudaGetErrorName(code));
  }
}

}  // namespace

const char* unusable_reason() {
  static std::string text;
  text = reason();
  return text.empty() ? nullptr : text.c_str();
}

int device_ordinal(int rank) {
  int devices = 0;
  MHMOE_CUDA_CHECK(cudaGetDeviceCount(&devices));
  return ordinal_among(devices, rank);
}

bool prefers_bf16(int rank) {
  int major = 0;
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device_ordinal(rank)));
  return major >= kOldestMajor;
}

}  // namespace mhmoe::cuda
