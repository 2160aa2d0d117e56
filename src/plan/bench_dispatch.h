// How long the rows of a configuration's MoE layer are on their way to the experts' ranks and back.
#pragma once

#include <string_view>
#include <vector>

#include "comm/groups.h"
#include "plan/bench.h"
#include "train/run_config.h"

namespace mhmoe::plan {

// One way of routing, of reserving room for it, and of dividing the experts into chunks.
struct DispatchRow {
  std::string_view routing;  // "balanced", "natural", "zipf", "one rank"
  bool dropless = false;
  int64_t chunks = 1;           // parallel.overlap_chunks
  int64_t rows = 0;             // that a rank sends, those for its own experts included
  int64_t busiest_rows = 0;     // that arrive at the rank where most do
  int64_t sent_bytes = 0;       // by the dispatch to other ranks, of the rank that sends most; the combine: reversed
  int64_t received_bytes = 0;   // likewise, of the rank that receives most
  int64_t row_bytes = 0;        // of one row
  double dropped_fraction = 0;  // of all ranks' choices
  double seconds = 0;           // of counts, rows out and rows back, the median; each time that of the slowest rank
  int64_t wrong = 0;            // elements, there and back, of all ranks, that are not what was sent

  // Bytes a second: of all rows, out and back, and of the links of the rank that has most to do.
  double algorithm_bandwidth() const;
  double bus_bandwidth() const;
};

// On tokens and weights as in bench.h. Rows travel by the code that layers use, and nothing is computed in between. The
// fixed capacity is the configuration's, or that of factor 1 where it is dropless. Natural is what the untrained
// router of the first MoE layer chooses; by Zipf's law expert e gets about 1 / (1 + e) of the choices; one rank gets
// all in the last. All ranks call together and get the same rows. options.steps: round trips that are timed. Throws
// Error(kConfig) for a dense model.
std::vector<DispatchRow> bench_dispatch(Context& ctx, const comm::ParallelGroups& groups,
                                        const train::RunConfig& config, DType compute, const BenchOptions& options);

}  // namespace mhmoe::plan
