// The part of the CUDA runtime that the backend uses, on host memory. Streams run everything at once, in program order.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "emulator/stream.h"

namespace {

constexpr int kPoison = 0xff;  // not-a-number as f32 and bf16
constexpr size_t kAlignment = 256;
constexpr int kMaxSharedBytes = 163 << 10;  // a block's, of compute capability 8.0

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
// The oldest device that the kernels are built for.
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor:
      *value = 8;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = 0;
      return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
      *value = 1;
      return cudaSuccess;
    case cudaDevAttrWarpSize:
      *value = 32;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = kMaxSharedBytes;
      return cudaSuccess;
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t cudaFuncSetAttribute(const void* /*kernel*/, cudaFuncAttribute attribute, int value) {
  const bool possible = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value <= kMaxSharedBytes;
  return possible ? cudaSuccess : cudaErrorInvalidValue;
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  *available = *total = 0;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    size_t kilobytes = 0;
    while (std::fgets(line, sizeof(line), file) != nullptr) {
      if (std::sscanf(line, "MemTotal: %zu kB", &kilobytes) == 1) *total = kilobytes << 10;
      if (std::sscanf(line, "MemAvailable: %zu kB", &kilobytes) == 1) *available = kilobytes << 10;
    }
    std::fclose(file);
  }
  return cudaSuccess;
}
// More than the machine has is refused here: a sanitizer's allocator would end the program.
cudaError_t cudaMalloc(void** data, size_t bytes) {
  size_t available = 0, total = 0;
  cudaMemGetInfo(&available, &total);
  if (bytes > total) return cudaErrorMemoryAllocation;
  if (posix_memalign(data, kAlignment, bytes > 0 ? bytes : 1) != 0) return cudaErrorMemoryAllocation;
  std::memset(*data, kPoison, bytes);
  return cudaSuccess;
}
cudaError_t cudaFree(void* data) {
  std::free(data);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind /*kind*/,
                            cudaStream_t stream) {
  return emulator::enqueue(stream, "cudaMemcpyAsync", [=] { std::memcpy(target, source, bytes); });
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
  return emulator::enqueue(stream, "cudaMemsetAsync", [=] { std::memset(target, value, bytes); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned /*flags*/) {
  *stream = reinterpret_cast<cudaStream_t>(std::malloc(1));
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  std::free(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t /*stream*/) {
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t code) {
  switch (code) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
      return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    default:
      return "an error the emulator has no name for";
  }
}
const char* cudaGetErrorString(cudaError_t code) {
  return cudaGetErrorName(code);
}

}  // extern "C"
