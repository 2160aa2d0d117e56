// An NCCL communicator, which other threads may give up while this one uses it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "cuda/nccl_check.h"

namespace mhmoe::cuda {

class NcclHandle {
 public:
  // Waits for all `size` ranks.
  NcclHandle(const ncclUniqueId& id, int size, int rank);
  // The communicator must have nothing left to do, and no graph may hold its calls: NCCL waits for both.
  ~NcclHandle();
  NcclHandle(const NcclHandle&) = delete;
  NcclHandle& operator=(const NcclHandle&) = delete;

  // Null once it was given up.
  ncclComm_t get() const;
  // What NCCL found out while it was at work; ncclSuccess if nothing, with NCCL's words else.
  ncclResult_t asynchronous_error(std::string* reason) const;

  // From any thread. NCCL's abort may wait, for graphs or a broken device, so it has a thread of its own.
  void begin_abort();
  bool aborted() const { return aborted_; }
  bool abort_ended() const { return *abort_ended_; }

 private:
  mutable std::mutex mutex_;
  ncclComm_t comm_ = nullptr;
  std::atomic<bool> aborted_ = false;
  std::shared_ptr<std::atomic<bool>> abort_ended_ = std::make_shared<std::atomic<bool>>(false);
};

}  // namespace mhmoe::cuda
