// Work on a stream: kernels, copies, and calls of CUDA's libraries all go through here.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <vector>

namespace emulator {

// Runs `work` in its turn on the stream: now or later, and again with every launch of a graph that it was recorded for.
// What it needs it must hold by value. `what` names it in faults. Device memory that one of `addresses` lies in must
// not be freed before the work runs: Fault. Returns why the stream takes no work.
cudaError_t enqueue(cudaStream_t stream, const char* what, std::function<void()> work,
                    const std::vector<const void*>& addresses = {});

}  // namespace emulator
