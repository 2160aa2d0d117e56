// A training run on many GPUs, by formula: what a rank holds and sends, and the least time that a step can take.
// docs/scaling.md has the formulas and where the constants come from. Nothing here was measured.
#pragma once

#include <array>
#include <vector>

#include "comm/groups.h"
#include "plan/gpu.h"
#include "plan/op_cost.h"
#include "train/memory_need.h"
#include "train/run_config.h"

namespace mhmoe::plan {

// Ranks are numbered node by node, one a GPU.
struct Cluster {
  int ranks = 1;
  int ranks_per_node = 1;
  const Gpu* gpu = nullptr;
};

// Seconds that a message takes beside its bytes, inside a node and between nodes: assumed.
constexpr double kInsideLatency = 1.9e-6, kBetweenLatency = 4.0e-6;
// Rows and columns of a block of the experts' products (kernels/block_product.cuh).
constexpr int64_t kProductTile = 128;

// Throws Error(kUsage) unless nodes are full, or all ranks lie in one.
void check_cluster(const Cluster& cluster);
// Of the first rank. Throws Error(kConfig) as make_layout.
comm::Layout layout_of(const train::RunConfig& config, int ranks);
// That one rank runs in a step. Throws Error(kConfig) that lists what would divide.
int64_t micro_batches_of_rank(const train::RunConfig& config, int ranks);
// The run with a batch of so many on each rank.
train::RunConfig with_micro_batches(const train::RunConfig& config, const comm::Layout& layout, int64_t micro_batches);

// Parameters that lie on one rank, without padding. Matrices have the compute dtype; the rest (norms, routers, biases)
// is f32 always.
struct HeldElements {
  struct Of {
    int64_t matrices = 0, others = 0;

    int64_t total() const { return matrices + others; }
  };
  Of dense;    // on every rank
  Of experts;  // of this rank's share of the experts, which world / expert_parallel_size ranks hold
};
HeldElements held_elements(const nn::ModelConfig& model, const comm::Layout& layout);

// The all-to-alls of one MoE layer and micro-batch: bytes of each rank's buffer, of which (P - 1) / P go to others.
struct LayerBuffers {
  int64_t rows = 0;  // of the routed buffer: E * C, or dropless all S * k
  int64_t row_bytes = 0;
  int64_t counts = 0;  // i32 [E], forward
  int64_t gates = 0;   // f32 [rows], forward; their gradients backward

  int64_t buffer() const { return rows * row_bytes; }  // goes out and back, forward and backward
};
LayerBuffers layer_buffers(const train::RunConfig& config, DType compute);
int64_t moe_layers(const nn::ModelConfig& model);
// 1, or 2 where blocks are recomputed.
int64_t forward_passes(const train::RunConfig& config);

// How the all-to-all goes. In two hops, first inside the node and then between equal local ranks, it sends fewer and
// larger messages but nearly twice the bytes.
struct Route {
  bool two_hops = false;
  int ranks_per_node = 1;
};
// Two hops are possible for groups of several whole nodes.
bool has_two_hops(const comm::Layout& layout, int ranks_per_node);
// What runs on GPUs do: as comm::use_hierarchy says, and in one hop where ranks have rows of unequal counts.
Route route_of(const train::RunConfig& config, const comm::Layout& layout, DType compute, int ranks_per_node);

// Bytes that one rank sends to others in a step, by Communicator::Kind, counted as TrafficCounter does. `held`: with
// padding, for a comparison with what was counted. Dropless: as if every rank got the same number of rows. Evaluation,
// norms and statistics are not in it.
using StepTraffic = std::array<int64_t, Communicator::kKinds>;
StepTraffic traffic_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                            const Route& route, const HeldElements& held);
StepTraffic traffic_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                            const Route& route = {});

// f32 gradients that parallel.width_invariant holds beside the one that every run has: the partial sums of a tree over
// the rank's micro-batches, of experts one tree for each rank of the group that sends rows. 0 where their number or
// that of ranks is no power of two, which it refuses.
int64_t invariant_gradients(const HeldElements& held, const comm::Layout& layout, int64_t micro_batches);
// Bytes that an all-to-all in two hops takes beside its ends, for the largest chunk of experts' rows: what came by the
// first hop, what is packed for one, and with several chunks what came by the second, before it is put in its places.
double hop_buffers(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Route& route);
int64_t overlap_chunks(const train::RunConfig& config, const comm::Layout& layout);

// Bytes on one rank, at most.
struct RankMemory {
  double values = 0;       // f32 values used as they are
  double copies = 0;       // bf16 copies of matrices
  double gradients = 0;    // f32
  double masters = 0;      // f32, its shard of them
  double moments = 0;      // f32, its shard of both
  double received = 0;     // rows of other ranks that backward needs again
  double activations = 0;  // all else that a micro-batch holds at its peak
  double transfers = 0;    // of a layer's all-to-alls, both ends; counts in activations if the peak lies there
  double imbalance = 0;    // dropless: more, if all rows of the group came to this rank in every layer
  double invariant = 0;    // what parallel.width_invariant would add on CPUs; in none of the sums

  double balanced() const { return values + copies + gradients + masters + moments + received + activations; }
  double worst() const { return balanced() + imbalance; }
};
// need: of a sizing pass of this layout's rank.
RankMemory memory_of_rank(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Route& route,
                          const train::MemoryNeed& need);

}  // namespace mhmoe::plan
