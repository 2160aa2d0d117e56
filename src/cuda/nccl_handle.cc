#include "cuda/nccl_handle.h"

#include <thread>
#include <utility>

namespace mhmoe::cuda {

std::string nccl_reason(ncclResult_t result, ncclComm_t comm) {
  const char* last = ncclGetLastError(comm);
  const std::string_view words = last == nullptr ? "" : last;
  return fmt::format("{}{}{}", ncclGetErrorString(result), words.empty() ? "" : ": ", words);
}

void fail_nccl(ncclResult_t result, ncclComm_t comm, const char* call, const char* file, int line) {
  fail_call(result == ncclRemoteError ? ExitCode::kPeerLost : ExitCode::kDevice, call, file, line,
            nccl_reason(result, comm));
}

NcclHandle::NcclHandle(const ncclUniqueId& id, int size, int rank) {
  MHMOE_NCCL_CHECK(nullptr, ncclCommInitRank(&comm_, size, id, rank));
}

NcclHandle::~NcclHandle() {
  if (comm_ == nullptr) return;
  if (const ncclResult_t result = ncclCommDestroy(comm_); result != ncclSuccess) {
    report_failed_release("ncclCommDestroy", ncclGetErrorString(result));
  }
}

ncclComm_t NcclHandle::get() const {
  const std::lock_guard lock(mutex_);
  return comm_;
}

ncclResult_t NcclHandle::asynchronous_error(std::string* reason) const {
  const std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return ncclSuccess;
  ncclResult_t error = ncclSuccess;
  MHMOE_NCCL_CHECK(comm_, ncclCommGetAsyncError(comm_, &error));
  if (error != ncclSuccess) *reason = nccl_reason(error, comm_);
  return error;
}

void NcclHandle::begin_abort() {
  ncclComm_t comm = nullptr;
  {
    const std::lock_guard lock(mutex_);
    aborted_ = true;
    comm = std::exchange(comm_, nullptr);
  }
  if (comm == nullptr) return;
  std::thread([comm, ended = abort_ended_] {
    ncclCommAbort(comm);
    *ended = true;
  }).detach();
}

}  // namespace mhmoe::cuda
