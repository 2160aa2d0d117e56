// The devices' properties: those of the oldest GPU that the programs at hand are built for, or what EMULATOR_FAIL says.
#include "device.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <unordered_map>

#include "call.h"
#include "emulator/fault.h"
#include "failures.h"
#include "memory.h"

namespace emulator {
namespace {

constexpr int kThreadsPerMultiprocessor = 2048, kBlocksPerMultiprocessor = 32, kRegisters = 65536;
constexpr size_t kReservedSharedBytes = size_t{1} << 10;  // of every block, for the system

int current_capability() {
  return failures().major * 10 + failures().minor;
}

size_t shared_bytes_per_multiprocessor() {
  const int capability = current_capability();
  if (capability < 80) return size_t{96} << 10;
  if (capability == 80 || capability == 87) return size_t{164} << 10;
  return capability < 90 || capability >= 120 ? size_t{100} << 10 : size_t{228} << 10;
}

int most_shared_bytes() {
  return static_cast<int>(shared_bytes_per_multiprocessor() - kReservedSharedBytes);
}

// EMULATOR_DEVICES (default 1) devices, which are all the same memory.
int device_count() {
  const char* variable = std::getenv("EMULATOR_DEVICES");
  if (variable == nullptr) return 1;
  const std::string_view text = variable;
  int count = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), count);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || count < 1) {
    throw Fault("EMULATOR_DEVICES=" + std::string(text) + ": allowed: a number from 1");
  }
  return count;
}

int& current_device() {
  static auto* devices = new std::unordered_map<std::thread::id, int>;
  return (*devices)[std::this_thread::get_id()];
}

bool is_device(int device) {
  return device >= 0 && device < device_count();
}

std::unordered_map<const void*, size_t>& shared_bytes_given() {
  static auto* bytes = new std::unordered_map<const void*, size_t>;
  return *bytes;
}

cudaError_t read_attribute(int* value, cudaDeviceAttr attribute, int device) {
  if (value == nullptr) return cudaErrorInvalidValue;
  if (!is_device(device)) return cudaErrorInvalidDevice;
  cudaDeviceProp properties{};
  if (const cudaError_t code = cudaGetDeviceProperties(&properties, device); code != cudaSuccess) return code;
  const std::unordered_map<int, int> values = {
      {cudaDevAttrComputeCapabilityMajor, properties.major},
      {cudaDevAttrComputeCapabilityMinor, properties.minor},
      {cudaDevAttrMultiProcessorCount, properties.multiProcessorCount},
      {cudaDevAttrWarpSize, properties.warpSize},
      {cudaDevAttrMaxThreadsPerBlock, properties.maxThreadsPerBlock},
      {cudaDevAttrMaxThreadsPerMultiProcessor, properties.maxThreadsPerMultiProcessor},
      {cudaDevAttrMaxBlocksPerMultiprocessor, properties.maxBlocksPerMultiProcessor},
      {cudaDevAttrMaxSharedMemoryPerBlock, static_cast<int>(properties.sharedMemPerBlock)},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, static_cast<int>(properties.sharedMemPerBlockOptin)},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, static_cast<int>(properties.sharedMemPerMultiprocessor)},
      {cudaDevAttrL2CacheSize, properties.l2CacheSize},
      {cudaDevAttrMemoryPoolsSupported, properties.memoryPoolsSupported},
      {cudaDevAttrCooperativeLaunch, properties.cooperativeLaunch},
      {cudaDevAttrConcurrentKernels, properties.concurrentKernels},
      {cudaDevAttrUnifiedAddressing, properties.unifiedAddressing},
  };
  const auto found = values.find(attribute);
  if (found == values.end()) return cudaErrorInvalidValue;
  *value = found->second;
  return cudaSuccess;
}

cudaError_t read_properties(cudaDeviceProp* out, int device) {
  if (out == nullptr) return cudaErrorInvalidValue;
  if (!is_device(device)) return cudaErrorInvalidDevice;
  *out = {};
  std::snprintf(out->name, sizeof(out->name), "emulated device");
  out->totalGlobalMem = Memory::total_bytes();
  out->sharedMemPerBlock = kFreeSharedBytes;
  out->sharedMemPerBlockOptin = static_cast<size_t>(most_shared_bytes());
  out->sharedMemPerMultiprocessor = shared_bytes_per_multiprocessor();
  out->reservedSharedMemPerBlock = kReservedSharedBytes;
  out->regsPerBlock = out->regsPerMultiprocessor = kRegisters;
  out->warpSize = 32;
  out->maxThreadsPerBlock = 1024;
  out->maxThreadsDim[0] = out->maxThreadsDim[1] = 1024;
  out->maxThreadsDim[2] = 64;
  out->maxGridSize[0] = 0x7fffffff;
  out->maxGridSize[1] = out->maxGridSize[2] = 65535;
  out->major = failures().major;
  out->minor = failures().minor;
  out->multiProcessorCount = 1;
  out->maxThreadsPerMultiProcessor = kThreadsPerMultiprocessor;
  out->maxBlocksPerMultiProcessor = kBlocksPerMultiprocessor;
  out->l2CacheSize = 40 << 20;
  out->concurrentKernels = out->unifiedAddressing = out->memoryPoolsSupported = 1;
  return cudaSuccess;
}

}  // namespace

size_t allowed_shared_bytes(const void* kernel) {
  const auto found = shared_bytes_given().find(kernel);
  return found == shared_bytes_given().end() ? kFreeSharedBytes : std::max(kFreeSharedBytes, found->second);
}

bool is_supported() {
  return failures().major >= 8 && !failures().no_image;
}

}  // namespace emulator

using emulator::call;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return call([&] {
    if (count == nullptr) return cudaErrorInvalidValue;
    *count = emulator::device_count();
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int device) {
  return call([&] {
    if (!emulator::is_device(device)) return cudaErrorInvalidDevice;
    emulator::current_device() = device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDevice(int* device) {
  return call([&] {
    if (device == nullptr) return cudaErrorInvalidValue;
    *device = emulator::current_device();
    return cudaSuccess;
  });
}
// Answers without a driver too: 0.
cudaError_t cudaDriverGetVersion(int* version) {
  if (version == nullptr) return emulator::remember(cudaErrorInvalidValue);
  const std::lock_guard lock(emulator::runtime_mutex());
  constexpr int kMajor = 1000;
  const auto& planned = emulator::failures();
  *version = planned.no_driver ? 0 : planned.old_driver ? CUDART_VERSION / kMajor * kMajor - kMajor : CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  if (version == nullptr) return emulator::remember(cudaErrorInvalidValue);
  *version = CUDART_VERSION;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return call([&] { return emulator::read_attribute(value, attribute, device); });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int device) {
  return call([&] { return emulator::read_properties(out, device); });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return call([&] {
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return cudaSuccess;
  });
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  return call([&] {
    const bool possible = attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value >= 0 &&
                          value <= emulator::most_shared_bytes();
    if (!possible) return cudaErrorInvalidValue;
    emulator::shared_bytes_given()[kernel] = static_cast<size_t>(value);
    return cudaSuccess;
  });
}
// What only a device's compiler knows, registers and static memory, is 0.
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* out, const void* kernel) {
  return call([&] {
    if (out == nullptr || kernel == nullptr) return cudaErrorInvalidValue;
    if (!emulator::is_supported()) return cudaErrorNoKernelImageForDevice;
    *out = {};
    out->maxThreadsPerBlock = 1024;
    out->maxDynamicSharedSizeBytes = static_cast<int>(emulator::allowed_shared_bytes(kernel));
    out->binaryVersion = out->ptxVersion = emulator::current_capability();
    return cudaSuccess;
  });
}
// By threads and dynamic shared memory alone.
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, const void* kernel, int threads,
                                                                   size_t shared_bytes, unsigned /*flags*/) {
  return call([&] {
    if (blocks == nullptr || kernel == nullptr || threads <= 0 || threads > 1024) return cudaErrorInvalidValue;
    const auto by_shared =
        emulator::shared_bytes_per_multiprocessor() / (shared_bytes + emulator::kReservedSharedBytes);
    *blocks = std::min({emulator::kBlocksPerMultiprocessor, emulator::kThreadsPerMultiprocessor / threads,
                        static_cast<int>(by_shared)});
    return cudaSuccess;
  });
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* kernel, int threads,
                                                          size_t shared_bytes) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, kernel, threads, shared_bytes,
                                                                cudaOccupancyDefault);
}

}  // extern "C"
