// Every call of NCCL goes through MHMOE_NCCL_CHECK.
#pragma once

#include <nccl.h>

#include <string>

#include "cuda/cuda_check.h"

namespace mhmoe::cuda {

// "remote process exited or there was a network error: ...", with NCCL's own last words where it has some. comm: null
// where there is none yet.
std::string nccl_reason(ncclResult_t result, ncclComm_t comm);

[[noreturn]] void fail_nccl(ncclResult_t result, ncclComm_t comm, const char* call, const char* file, int line);

inline void check_nccl(ncclResult_t result, ncclComm_t comm, const char* call, const char* file, int line) {
  if (result != ncclSuccess) [[unlikely]] {
    fail_nccl(result, comm, call, file, line);
  }
}

}  // namespace mhmoe::cuda

// Throws Error(kPeerLost) where another rank is the reason, else Error(kDevice), with the call, its place, rank, device
// and NCCL's reason.
#define MHMOE_NCCL_CHECK(comm, call) ::mhmoe::cuda::check_nccl((call), (comm), #call, __FILE__, __LINE__)
