// The program's threads: the only place that opens a parallel region.
#pragma once

#include <cstdint>
#include <type_traits>

#include "core/api.h"

namespace mhmoe {

MHMOE_API int thread_count();
// At least 1. Affects later calls.
MHMOE_API void set_thread_count(int threads);
// True inside a parallel_for body: nested calls run on the calling thread.
MHMOE_API bool in_parallel();

// The program's threads while it lives.
class ThreadCount {
 public:
  explicit ThreadCount(int threads) : before_(thread_count()) { set_thread_count(threads); }
  ~ThreadCount() { set_thread_count(before_); }
  ThreadCount(const ThreadCount&) = delete;
  ThreadCount& operator=(const ThreadCount&) = delete;

 private:
  int before_;
};

namespace detail {
using RangeFunction = void (*)(void* body, int64_t begin, int64_t end, int thread);
MHMOE_API void parallel_ranges(int64_t count, int64_t grain, RangeFunction function, void* body);
MHMOE_API void parallel_tasks(int64_t count, RangeFunction function, void* body);
}  // namespace detail

// body(begin, end, thread) over a partition of [0, count) into at most thread_count() contiguous ranges of at least
// `grain` elements. The partition depends on the number of threads: bodies must not sum across their range.
// Exceptions thrown by a body are rethrown to the caller.
template <class Body>
void parallel_for(int64_t count, int64_t grain, Body&& body) {
  detail::parallel_ranges(
      count, grain,
      [](void* b, int64_t begin, int64_t end, int thread) {
        (*static_cast<std::remove_reference_t<Body>*>(b))(begin, end, thread);
      },
      &body);
}

// body(task, thread) for every task in [0, count), handed out one by one: for few tasks of uneven size.
template <class Body>
void parallel_tasks(int64_t count, Body&& body) {
  detail::parallel_tasks(
      count,
      [](void* b, int64_t task, int64_t, int thread) {
        (*static_cast<std::remove_reference_t<Body>*>(b))(task, thread);
      },
      &body);
}

}  // namespace mhmoe
