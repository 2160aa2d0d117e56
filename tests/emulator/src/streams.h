// Streams and events.
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "capture.h"
#include "pending.h"

struct CUstream_st {
  unsigned flags = cudaStreamDefault;
  emulator::WorkId last = 0;
  emulator::CapturePoint recording;
};

struct CUevent_st {
  unsigned flags = cudaEventDefault;
  emulator::WorkId work = 0;                                                   // after which it has happened
  std::shared_ptr<std::optional<std::chrono::steady_clock::time_point>> time;  // of the latest record; null: none
  emulator::CapturePoint recording;                                            // of the latest record
};

namespace emulator {

// The stream itself, or the one that handles 0 and cudaStreamLegacy stand for. Null: there is no such stream.
cudaStream_t resolve(cudaStream_t stream);
bool is_null_stream(cudaStream_t stream);
bool has_blocking_capture();

// Puts work on a stream that exists and does not record, after what the stream and `also` have. Returns its number.
WorkId append(cudaStream_t stream, std::function<void()> work, std::vector<WorkId> also = {});
// As enqueue, for callers that hold the lock. Work of the program's own on the null stream is a fault while there are
// streams that it is not ordered with.
cudaError_t submit(cudaStream_t stream, const char* what, std::function<void()> work,
                   const std::vector<const void*>& addresses = {});

}  // namespace emulator
