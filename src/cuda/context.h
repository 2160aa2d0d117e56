// A CUDA device as a Context: memory by cudaMalloc, a compute and a communication stream.
//
// Arena memory is given out again while kernels that use it may not have run yet. That is safe because all of them run
// on one stream, in order; what the communication stream touches lives in a CommunicationScope.
#pragma once

#include "device/context.h"

namespace mhmoe::cuda {

class CublasHandle;
class Peers;

// Makes the device of the machine's process `rank` (device.h) the calling thread's current one. Throws Error(kDevice)
// when there is no such device.
std::unique_ptr<Context> create_context(int rank);
// The handle of the compute stream of a context that create_context made.
CublasHandle& cublas_of(Context& ctx);
// The communicators of such a context, which its waits for the device ask.
Peers& peers_of(Context& ctx);

}  // namespace mhmoe::cuda
