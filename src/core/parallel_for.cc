#include "core/parallel_for.h"

#include <omp.h>

#include <algorithm>

#include "core/first_exception.h"

namespace mhmoe {

int thread_count() {
  return omp_get_max_threads();
}
void set_thread_count(int threads) {
  omp_set_num_threads(std::max(1, threads));
}
bool in_parallel() {
  return omp_in_parallel() != 0;
}

namespace detail {

void parallel_ranges(int64_t count, int64_t grain, RangeFunction function, void* body) {
  if (count <= 0) return;
  const int64_t most = (count + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1);
  const int threads = static_cast<int>(std::min<int64_t>(in_parallel() ? 1 : thread_count(), most));
  if (threads <= 1) return function(body, 0, count, omp_get_thread_num());
  FirstException first;
#pragma omp parallel num_threads(threads)
  {
    const int64_t team = omp_get_num_threads();
    const int64_t me = omp_get_thread_num();
    const int64_t begin = count * me / team;
    const int64_t end = count * (me + 1) / team;
    if (begin < end) first.guard([&] { function(body, begin, end, static_cast<int>(me)); });
  }
  first.rethrow();
}

void parallel_tasks(int64_t count, RangeFunction function, void* body) {
  if (count <= 0) return;
  const int threads = static_cast<int>(std::min<int64_t>(in_parallel() ? 1 : thread_count(), count));
  if (threads <= 1) {
    for (int64_t task = 0; task < count; ++task) function(body, task, task + 1, omp_get_thread_num());
    return;
  }
  FirstException first;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int64_t task = 0; task < count; ++task) {
    first.guard([&] { function(body, task, task + 1, omp_get_thread_num()); });
  }
  first.rethrow();
}

}  // namespace detail
}  // namespace mhmoe
