// How fast a communicator is, by collective and size, as nccl-tests measure it.
#pragma once

#include <string_view>
#include <vector>

#include "device/context.h"
#include "device/job.h"

namespace mhmoe::comm {

struct BenchOptions {
  int64_t min_bytes = 1024, max_bytes = int64_t{16} << 20;  // of the whole vector; grows by 4
  int warmup = 5, calls = 20;
};

// One size of one collective. All are f32.
struct BenchRow {
  std::string_view collective;  // "all_reduce"
  int64_t bytes = 0;            // of the whole vector: of what a rank has before all_reduce, or after all_gather
  int64_t count = 0;            // elements that a rank names in its call
  double seconds = 0;           // a call, the mean over calls and ranks
  double bus_factor = 0;        // bytes on the wire a rank, of `bytes`, around a ring
  int64_t wrong = 0;            // elements of the result, over all ranks, that are not what they must be

  // Bytes a second: of the vector, and of a rank's link.
  double algorithm_bandwidth() const { return seconds > 0 ? static_cast<double>(bytes) / seconds : 0; }
  double bus_bandwidth() const { return algorithm_bandwidth() * bus_factor; }
};

// Collectives of all of the job's ranks, which call it together; the rows are the same on all.
std::vector<BenchRow> bench_collectives(Context& ctx, Job& job, Communicator& world, const BenchOptions& options);

}  // namespace mhmoe::comm
