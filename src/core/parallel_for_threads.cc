// parallel_for for ThreadSanitizer, which does not understand how OpenMP's threads wait for each other.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <thread>
#include <vector>

#include "core/first_exception.h"
#include "core/parallel_for.h"

namespace mhmoe {
namespace {

int initial_threads() {
  const char* variable = std::getenv("OMP_NUM_THREADS");
  const int asked = variable == nullptr ? 0 : std::atoi(variable);
  return asked > 0 ? asked : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::atomic<int>& threads_to_use() {
  static std::atomic<int> threads = initial_threads();
  return threads;
}

thread_local bool inside = false;
thread_local int own_number = 0;

// body(number) on this thread and on threads - 1 others.
template <class Body>
void run_on(int threads, Body&& body) {
  FirstException first;
  const auto work = [&](int number) {
    const int outer = own_number;
    inside = true;
    own_number = number;
    first.guard([&] { body(number); });
    own_number = outer;
    inside = false;
  };
  std::vector<std::thread> others;
  for (int number = 1; number < threads; ++number) others.emplace_back(work, number);
  work(0);
  for (std::thread& other : others) other.join();
  first.rethrow();
}

}  // namespace

int thread_count() {
  return threads_to_use();
}
void set_thread_count(int threads) {
  threads_to_use() = std::max(1, threads);
}
bool in_parallel() {
  return inside;
}

namespace detail {

void parallel_ranges(int64_t count, int64_t grain, RangeFunction function, void* body) {
  if (count <= 0) return;
  const int64_t most = (count + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1);
  const int threads = static_cast<int>(std::min<int64_t>(in_parallel() ? 1 : thread_count(), most));
  if (threads <= 1) return function(body, 0, count, own_number);
  run_on(threads, [&](int number) {
    const int64_t begin = count * number / threads, end = count * (number + 1) / threads;
    if (begin < end) function(body, begin, end, number);
  });
}

void parallel_tasks(int64_t count, RangeFunction function, void* body) {
  if (count <= 0) return;
  const int threads = static_cast<int>(std::min<int64_t>(in_parallel() ? 1 : thread_count(), count));
  std::atomic<int64_t> next = 0;
  const auto take_tasks = [&](int number) {
    for (int64_t task = next++; task < count; task = next++) function(body, task, task + 1, number);
  };
  if (threads <= 1) return take_tasks(own_number);
  run_on(threads, take_tasks);
}

}  // namespace detail
}  // namespace mhmoe
