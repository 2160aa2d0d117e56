// Between NCCL's functions and what they do.
#pragma once

#include "nccl/exchange.h"

struct ncclComm {
  std::shared_ptr<emulator::Clique> clique;
};

namespace emulator {

// Queues the call on the stream, or adds it to the group that is open.
ncclResult_t submit(Call call, cudaStream_t stream);

}  // namespace emulator
