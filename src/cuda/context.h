// A CUDA device as a Context: memory by cudaMalloc and one compute stream.
#pragma once

#include "device/context.h"

namespace mhmoe::cuda {

class CublasHandle;

// Makes the device the calling thread's current one. Throws Error(kDevice) when there is no such device.
std::unique_ptr<Context> create_context(int ordinal);
// The handle of the compute stream of a context that create_context made.
CublasHandle& cublas_of(Context& ctx);
// Null when a device answers, else why none does.
const char* unusable_reason();
// bf16 matrix products run at full speed from compute capability 8.0.
bool prefers_bf16();

}  // namespace mhmoe::cuda
