// Recorded work as a CUDA graph.
#pragma once

#include <functional>
#include <memory>

#include "cuda/handles.h"
#include "device/context.h"

namespace mhmoe::cuda {

// Captures what `work` puts on the stream, and on others that join it.
std::unique_ptr<RecordedWork> capture(cudaStream_t stream, const std::function<void()>& work);

}  // namespace mhmoe::cuda
