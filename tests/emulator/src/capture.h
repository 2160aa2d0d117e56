// Graphs: work that was recorded instead of run, and streams that record.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "pending.h"

namespace emulator {

struct GraphNode {
  const char* what;
  std::function<void()> run;
  std::vector<size_t> after;
};
using GraphNodes = std::vector<GraphNode>;

// Between cudaStreamBeginCapture and cudaStreamEndCapture.
struct Capture {
  cudaStream_t origin;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  bool valid = true, ended = false;
  GraphNodes nodes;
  std::vector<cudaStream_t> streams;  // that record for it
};

// Where a stream's, or an event's, recorded work ends.
struct CapturePoint {
  std::shared_ptr<Capture> capture;  // null: it does not record
  std::vector<size_t> last;
};

cudaError_t record(CapturePoint& at, const char* what, std::function<void()> run);
// The stream waits for an event that was recorded at `event`.
cudaError_t join(cudaStream_t stream, const CapturePoint& event);
// The answer to calls that are not permitted while any stream, or this one, records; the capture is lost.
cudaError_t refuse_in_any_capture();
cudaError_t refuse_in_capture(const CapturePoint& at);
// The answer to calls that a capture in the calling thread's way forbids unless its mode is relaxed.
cudaError_t refuse_unsafe_call();

}  // namespace emulator
