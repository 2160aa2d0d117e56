// Memory that kernels use within one call: conversions to f32, tiles.
#pragma once

#include <cstdlib>
#include <memory>

#include "core/arena.h"

namespace mhmoe::cpu {

// Grows to the largest request and stays, so that steps of equal shapes allocate nothing. One a thread and purpose
// (thread_local): it is not planned by the arenas because it is at most a few MiB a thread.
class Scratch {
 public:
  // At least `bytes`, aligned; contents are undefined and the last request's memory is gone.
  void* bytes(size_t bytes) {
    if (bytes > size_) {
      const size_t rounded = (bytes / Arena::kAlignment + 1) * Arena::kAlignment;
      data_.reset();  // first, so that both are never held at once
      size_ = 0;
      data_.reset(std::aligned_alloc(Arena::kAlignment, rounded));
      if (data_ == nullptr) fail(ExitCode::kMemory, "cannot allocate {} bytes of scratch; use a smaller batch", bytes);
      size_ = rounded;
    }
    return data_.get();
  }
  float* floats(int64_t count) { return static_cast<float*>(bytes(static_cast<size_t>(count) * sizeof(float))); }

 private:
  struct Free {
    void operator()(void* data) const { std::free(data); }
  };
  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
};

}  // namespace mhmoe::cpu
