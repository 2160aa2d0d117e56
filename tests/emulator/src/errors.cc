// The calling thread's last error, the state of the device, and CUDA's words for its error codes.
#include <cuda_runtime_api.h>

#include <thread>
#include <unordered_map>

#include "call.h"
#include "failures.h"

namespace emulator {
namespace {

cudaError_t broken = cudaSuccess;

// Never destroyed: programs release what they have until the very end.
cudaError_t& last_error() {
  static auto* errors = new std::unordered_map<std::thread::id, cudaError_t>;
  return (*errors)[std::this_thread::get_id()];
}

struct Words {
  cudaError_t code;
  const char *name, *text;
};

constexpr Words kWords[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorInvalidMemcpyDirection, "cudaErrorInvalidMemcpyDirection", "invalid copy direction for memcpy"},
    {cudaErrorIllegalState, "cudaErrorIllegalState", "the operation cannot be performed in the present state"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureMerge, "cudaErrorStreamCaptureMerge",
     "operation would result in a merge of separate capture sequences"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched",
     "capture was not ended in the same stream as it began"},
    {cudaErrorStreamCaptureUnjoined, "cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"},
    {cudaErrorStreamCaptureIsolation, "cudaErrorStreamCaptureIsolation",
     "dependency created on uncaptured work in another stream"},
    {cudaErrorStreamCaptureImplicit, "cudaErrorStreamCaptureImplicit",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {cudaErrorCapturedEvent, "cudaErrorCapturedEvent",
     "operation not permitted on an event last recorded in a capturing stream"},
    {cudaErrorStreamCaptureWrongThread, "cudaErrorStreamCaptureWrongThread",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

const Words* words_of(cudaError_t code) {
  for (const Words& words : kWords) {
    if (words.code == code) return &words;
  }
  return nullptr;
}

}  // namespace

std::recursive_mutex& runtime_mutex() {
  static auto* mutex = new std::recursive_mutex;
  return *mutex;
}

cudaError_t remember(cudaError_t code) {
  if (code != cudaSuccess) last_error() = code;
  return code;
}

cudaError_t device_state() {
  const Failures& planned = failures();
  if (planned.no_driver || planned.old_driver) return cudaErrorInsufficientDriver;
  if (planned.no_device) return cudaErrorNoDevice;
  return broken;
}

void break_device(cudaError_t code) {
  broken = code;
}

bool device_is_broken() {
  return broken != cudaSuccess;
}

}  // namespace emulator

extern "C" {

cudaError_t cudaPeekAtLastError() {
  const std::lock_guard lock(emulator::runtime_mutex());
  return emulator::device_is_broken() ? emulator::device_state() : emulator::last_error();
}
cudaError_t cudaGetLastError() {
  const std::lock_guard lock(emulator::runtime_mutex());
  const cudaError_t code = cudaPeekAtLastError();
  emulator::last_error() = cudaSuccess;
  return code;
}
const char* cudaGetErrorName(cudaError_t code) {
  const auto* words = emulator::words_of(code);
  return words == nullptr ? "unrecognized error code" : words->name;
}
const char* cudaGetErrorString(cudaError_t code) {
  const auto* words = emulator::words_of(code);
  return words == nullptr ? "unrecognized error code" : words->text;
}

}  // extern "C"
