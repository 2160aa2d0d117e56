// Owners of the CUDA runtime's objects.
#pragma once

#include <utility>

#include "cuda/cuda_check.h"

namespace mhmoe::cuda {

template <class T, cudaError_t (*kDestroy)(T)>
class Handle {
 public:
  Handle() = default;
  explicit Handle(T value) : value_(value) {}
  Handle(Handle&& other) noexcept : value_(std::exchange(other.value_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle() {
    if (value_ == nullptr) return;
    if (const cudaError_t code = kDestroy(value_); code != cudaSuccess) {
      report_failed_release("release of a stream, event or graph", cudaGetErrorString(code));
    }
  }

  T get() const { return value_; }

 private:
  T value_ = nullptr;
};

using StreamHandle = Handle<cudaStream_t, cudaStreamDestroy>;
using EventHandle = Handle<cudaEvent_t, cudaEventDestroy>;
using GraphHandle = Handle<cudaGraph_t, cudaGraphDestroy>;
using GraphExecHandle = Handle<cudaGraphExec_t, cudaGraphExecDestroy>;

// A stream that does not wait for the default one.
inline StreamHandle make_stream() {
  cudaStream_t stream = nullptr;
  MHMOE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return StreamHandle(stream);
}

inline EventHandle make_event() {
  cudaEvent_t event = nullptr;
  MHMOE_CUDA_CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return EventHandle(event);
}

}  // namespace mhmoe::cuda
