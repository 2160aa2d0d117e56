// Uploads that do not wait for the device: through pinned memory, which the host has back when the copies are done.
#pragma once

#include <array>
#include <cstddef>
#include <functional>

#include "cuda/handles.h"

namespace mhmoe::cuda {

// A ring of segments of pinned memory. A segment is used again once the copies out of it are done, which an event
// tells; the ring is so large that what was planned never meets a segment of its own.
class StagingRing {
 public:
  explicit StagingRing(cudaStream_t stream);
  ~StagingRing();
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;

  // So many bytes may be under way at one time without a wait. May wait for the stream.
  void plan(size_t bytes);
  // Copies to the device in the stream's order, in pieces of at most a segment; `source` may be reused on return.
  // wait: called when a segment must be waited for, with the event that tells.
  void upload(void* target, const void* source, size_t bytes, const std::function<void(cudaEvent_t)>& wait);

 private:
  static constexpr size_t kSegments = 4;

  void allocate(size_t segment_bytes);
  void release();
  void next_segment(const std::function<void(cudaEvent_t)>& wait);

  cudaStream_t stream_;
  std::byte* memory_ = nullptr;
  size_t segment_bytes_ = 0;
  size_t segment_ = 0, used_ = 0;  // the current segment, and the bytes of it that are taken
  std::array<EventHandle, kSegments> done_;
  std::array<bool, kSegments> recorded_{};
};

}  // namespace mhmoe::cuda
