// The first exception of any thread of a parallel region, which none may leave.
#pragma once

#include <exception>
#include <mutex>

namespace mhmoe {

class FirstException {
 public:
  template <class F>
  void guard(F&& f) {
    try {
      f();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!caught_) caught_ = std::current_exception();
    }
  }
  // After the region.
  void rethrow() const {
    if (caught_) std::rethrow_exception(caught_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr caught_;
};

}  // namespace mhmoe
