// CUDA's calls that allocate, free and ask about memory. None of them waits for any stream: on a device some do, but
// CUDA does not promise it.
#include <cuda_runtime_api.h>

#include "call.h"
#include "capture.h"
#include "failures.h"
#include "memory.h"
#include "streams.h"

namespace emulator {
namespace {

cudaError_t allocate(void** out, size_t bytes, MemoryKind kind) {
  if (out == nullptr) return cudaErrorInvalidValue;
  const Allocation* made = bytes == 0 ? nullptr : memory().allocate(bytes, kind);
  if (made == nullptr && bytes > 0) return cudaErrorMemoryAllocation;
  *out = made == nullptr ? nullptr : made->data;
  return cudaSuccess;
}

cudaError_t allocate_device(void** out, size_t bytes) {
  if (const cudaError_t refused = refuse_unsafe_call(); refused != cudaSuccess) return refused;
  Failures& planned = failures();
  if (++planned.mallocs == planned.malloc) return cudaErrorMemoryAllocation;
  return allocate(out, bytes, MemoryKind::kDevice);
}

cudaError_t allocate_pinned(void** out, size_t bytes) {
  if (const cudaError_t refused = refuse_unsafe_call(); refused != cudaSuccess) return refused;
  return allocate(out, bytes, MemoryKind::kPinned);
}

cudaError_t release(const char* name, void* data, MemoryKind kind) {
  if (data == nullptr) return cudaSuccess;
  if (const cudaError_t refused = refuse_unsafe_call(); refused != cudaSuccess) return refused;
  return memory().release(name, data, kind);
}

// The memory is there at once, on a device when the stream gets there.
cudaError_t allocate_async(void** out, size_t bytes, cudaStream_t handle) {
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording.capture != nullptr) return refuse_in_capture(stream->recording);
  Failures& planned = failures();
  if (++planned.mallocs == planned.malloc) return cudaErrorMemoryAllocation;
  return allocate(out, bytes, MemoryKind::kDevice);
}

cudaError_t release_async(void* data, cudaStream_t handle) {
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording.capture != nullptr) return refuse_in_capture(stream->recording);
  if (data == nullptr) return cudaErrorInvalidValue;
  append(stream, [data] { memory().release("cudaFreeAsync", data, MemoryKind::kDevice); });
  return cudaSuccess;
}

cudaMemoryType type_of(const Allocation* allocation) {
  if (allocation == nullptr || allocation->freed) return cudaMemoryTypeUnregistered;
  return allocation->kind == MemoryKind::kDevice ? cudaMemoryTypeDevice : cudaMemoryTypeHost;
}

}  // namespace
}  // namespace emulator

using emulator::call;
using emulator::memory;
using emulator::MemoryKind;

extern "C" {

cudaError_t cudaMalloc(void** out, size_t bytes) {
  return call([&] { return emulator::allocate_device(out, bytes); });
}
// Device memory is the host's here anyway.
cudaError_t cudaMallocManaged(void** out, size_t bytes, unsigned /*flags*/) {
  return cudaMalloc(out, bytes);
}
cudaError_t cudaFree(void* data) {
  return emulator::release_call([&] { return emulator::release("cudaFree", data, MemoryKind::kDevice); });
}
cudaError_t cudaHostAlloc(void** out, size_t bytes, unsigned /*flags*/) {
  return call([&] { return emulator::allocate_pinned(out, bytes); });
}
cudaError_t cudaMallocHost(void** out, size_t bytes) {
  return cudaHostAlloc(out, bytes, cudaHostAllocDefault);
}
cudaError_t cudaFreeHost(void* data) {
  return emulator::release_call([&] { return emulator::release("cudaFreeHost", data, MemoryKind::kPinned); });
}
cudaError_t cudaMallocAsync(void** out, size_t bytes, cudaStream_t stream) {
  return call([&] { return emulator::allocate_async(out, bytes, stream); });
}
cudaError_t cudaFreeAsync(void* data, cudaStream_t stream) {
  return call([&] { return emulator::release_async(data, stream); });
}
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  return call([&] {
    if (available == nullptr || total == nullptr) return cudaErrorInvalidValue;
    *available = memory().available_bytes();
    *total = emulator::Memory::total_bytes();
    return cudaSuccess;
  });
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* out, const void* address) {
  return call([&] {
    if (out == nullptr) return cudaErrorInvalidValue;
    const auto* allocation = memory().find(address);
    *out = {};
    out->type = emulator::type_of(allocation);
    out->device = out->type == cudaMemoryTypeUnregistered ? -1 : 0;
    void* found = out->type == cudaMemoryTypeUnregistered ? nullptr : const_cast<void*>(address);
    out->devicePointer = found;
    out->hostPointer = out->type == cudaMemoryTypeHost ? found : nullptr;
    return cudaSuccess;
  });
}

}  // extern "C"
