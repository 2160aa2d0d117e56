#include "cuda/cuda_check.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "core/log.h"
#include "core/rank.h"
#include "device/last_op.h"

namespace mhmoe::cuda {
namespace {

bool device_is_lost = false;

// After these every call of the process fails with the same code.
bool is_sticky(cudaError_t code) {
  switch (code) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidPc:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorLaunchTimeout:
    case cudaErrorECCUncorrectable:
      return true;
    default:
      return false;
  }
}

// How the device is, from a call that is allowed also while a stream is captured.
cudaError_t device_state() {
  cudaStreamCaptureStatus ignored{};
  return cudaStreamIsCapturing(nullptr, &ignored);
}

// What a kernel's fault means, the first time; empty for other failures.
std::string lost_device_text(cudaError_t code) {
  if (device_is_lost || !is_sticky(code)) return "";
  device_is_lost = true;
  return fmt::format(
      "; a kernel failed and this process can no longer use the device; the op started last was {}, an earlier one may "
      "be the cause: run again with CUDA_LAUNCH_BLOCKING=1, from the last checkpoint",
      last_op().empty() ? "none" : last_op());
}

[[noreturn]] void fail_in(cudaError_t state, ExitCode code, const char* call, const char* file, int line,
                          std::string_view reason) {
  int device = -1;
  const bool known = cudaGetDevice(&device) == cudaSuccess;
  cudaGetLastError();  // a refused call must not be reported again by the next one
  std::string_view name(file);
  name.remove_prefix(std::min(name.size(), name.find_last_of('/') + 1));
  fail(code, "CUDA: {} at {}:{} on rank {}, device {}: {}{}", call, name, line, process_rank(),
       known ? std::to_string(device) : "unknown", reason, lost_device_text(state));
}

}  // namespace

void fail_call(ExitCode code, const char* call, const char* file, int line, std::string_view reason) {
  fail_in(device_state(), code, call, file, line, reason);
}

void fail_call(cudaError_t code, const char* call, const char* file, int line) {
  fail_in(code, code == cudaErrorMemoryAllocation ? ExitCode::kMemory : ExitCode::kDevice, call, file, line,
          fmt::format("{} ({})", cudaGetErrorString(code), cudaGetErrorName(code)));
}

void report_failed_release(const char* call, const char* reason) {
  if (!device_is_lost) log::error("CUDA: {}: {}", call, reason);
}

}  // namespace mhmoe::cuda
