// The least time of a step on many GPUs: floors of computing and of sending, one after the other and overlapped.
#pragma once

#include "plan/cluster.h"

namespace mhmoe::plan {

// One collective as the rank sees it that has most to send to other nodes.
struct Exchange {
  double inside_bytes = 0, between_bytes = 0;  // sent to ranks of this node, and of others
  int64_t inside_messages = 0, between_messages = 0;
  double seconds = 0;
};

// Of a buffer in equal parts for all ranks of the expert-parallel group. Messages count as sent one after another;
// NVLink and network work at the same time, but for two hops.
Exchange all_to_all(double buffer_bytes, const comm::Layout& layout, const Cluster& cluster, const Route& route);

// Of a vector of `bytes` around a ring of `ranks` ranks that lie `stride` apart, reduced or gathered in one call.
Exchange ring(double bytes, int ranks, int stride, const Cluster& cluster);

// Floors on one rank, of the ops that step_work counts.
struct RankWork {
  double micro_batch_seconds = 0;
  double experts_seconds = 0;  // of these, the experts' products of all layers, forward and backward
  double update_seconds = 0;
};
RankWork work_of_rank(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Gpu& gpu);

// The experts' products of one launch: all experts', or where they are shared out those of one chunk on the rows of one
// source. One that has fewer tiles than the GPU has multiprocessors, or rows for less than a tile, leaves a part of it
// idle.
struct ExpertProduct {
  int64_t rows = 0;     // M: of one expert from one source; dropless: on average
  int64_t columns = 0;  // N, of the narrowest product
  int64_t products = 0;
  int64_t tiles = 0;
};
ExpertProduct expert_product(const train::RunConfig& config, const comm::Layout& layout);

struct ClusterTimes {
  int64_t micro_batches = 0;  // a rank
  RankWork work;
  double all_to_all_seconds = 0;         // of one micro-batch
  double exposed_seconds = 0;            // of these, what overlap leaves
  int64_t buckets = 0;                   // calls of reducing, and of gathering
  double reduce_scatter_seconds = 0;     // of a step
  double reduction_latency_seconds = 0;  // of these, latency; the same of gathering
  double exposed_reduce_seconds = 0;     // of these, what overlap leaves
  double all_gather_seconds = 0;         // never overlapped
  double whole_reduction_seconds = 0;    // reducing and gathering without buckets, so that nothing overlaps
  double model_flops = 0;                // of all ranks

  double compute_seconds() const {
    return static_cast<double>(micro_batches) * work.micro_batch_seconds + work.update_seconds;
  }
  double sequential_seconds() const {
    return compute_seconds() + static_cast<double>(micro_batches) * all_to_all_seconds + reduce_scatter_seconds +
           all_gather_seconds;
  }
  double overlapped_seconds() const {
    return compute_seconds() + static_cast<double>(micro_batches) * exposed_seconds + exposed_reduce_seconds +
           all_gather_seconds;
  }
  // Rows overlapped, gradients reduced after the last backward pass.
  double whole_reduction_step_seconds() const {
    return compute_seconds() + static_cast<double>(micro_batches) * exposed_seconds + whole_reduction_seconds;
  }
};
ClusterTimes times_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                           const Cluster& cluster, const Route& route);

// Parts of a step's transfers, for tables: sums over a step.
struct TransferRow {
  const char* name;
  int64_t calls = 0;
  double inside_bytes = 0, between_bytes = 0;
};
std::vector<TransferRow> transfers_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                                           const Cluster& cluster, const Route& route);

}  // namespace mhmoe::plan
