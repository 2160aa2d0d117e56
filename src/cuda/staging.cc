#include "cuda/staging.h"

#include <algorithm>
#include <cstring>

namespace mhmoe::cuda {
namespace {

constexpr size_t kSmallestSegment = size_t{1} << 20;
constexpr size_t kAlignment = 256;

size_t align_up(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

}  // namespace

StagingRing::StagingRing(cudaStream_t stream) : stream_(stream) {
  for (EventHandle& event : done_) event = make_event();
  allocate(kSmallestSegment);
}

StagingRing::~StagingRing() {
  release();
}

void StagingRing::allocate(size_t segment_bytes) {
  void* memory = nullptr;
  MHMOE_CUDA_CHECK(cudaMallocHost(&memory, kSegments * segment_bytes));
  memory_ = static_cast<std::byte*>(memory);
  segment_bytes_ = segment_bytes;
  segment_ = used_ = 0;
  recorded_ = {};
}

void StagingRing::release() {
  if (memory_ == nullptr) return;
  // Copies may still read it; none does once the wait has failed, since the device is lost then.
  for (const cudaError_t code : {cudaStreamSynchronize(stream_), cudaFreeHost(memory_)}) {
    if (code != cudaSuccess) report_failed_release("release of pinned memory", cudaGetErrorString(code));
  }
  memory_ = nullptr;
}

// What is planned then takes at most two segments and the rest of a third, also where pieces are rounded up.
void StagingRing::plan(size_t bytes) {
  const size_t wanted = align_up(bytes);
  if (wanted <= segment_bytes_) return;
  release();
  allocate(wanted);
}

void StagingRing::next_segment(const std::function<void(cudaEvent_t)>& wait) {
  MHMOE_CUDA_CHECK(cudaEventRecord(done_[segment_].get(), stream_));
  recorded_[segment_] = true;
  segment_ = (segment_ + 1) % kSegments;
  used_ = 0;
  if (!recorded_[segment_]) return;
  const cudaError_t code = cudaEventQuery(done_[segment_].get());
  if (code != cudaErrorNotReady) return check_call(code, "cudaEventQuery", __FILE__, __LINE__);
  cudaGetLastError();  // "not ready" is an answer, not an error for the next call to report
  wait(done_[segment_].get());
}

void StagingRing::upload(void* target, const void* source, size_t bytes, const std::function<void(cudaEvent_t)>& wait) {
  auto* to = static_cast<std::byte*>(target);
  const auto* from = static_cast<const std::byte*>(source);
  while (bytes > 0) {
    if (used_ == segment_bytes_) next_segment(wait);
    const size_t piece = std::min(bytes, segment_bytes_ - used_);
    std::byte* staged = memory_ + segment_ * segment_bytes_ + used_;
    std::memcpy(staged, from, piece);
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(to, staged, piece, cudaMemcpyHostToDevice, stream_));
    used_ = align_up(used_ + piece);
    to += piece, from += piece, bytes -= piece;
  }
}

}  // namespace mhmoe::cuda
