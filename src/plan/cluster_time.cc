#include "plan/cluster_time.h"

#include <algorithm>

#include "nn/parameters.h"
#include "ops/activation.h"
#include "plan/step_work.h"
#include "train/flops.h"

namespace mhmoe::plan {
namespace {

// Ranks of an expert-parallel group that share a node with one of them, where they are fewest: groups may straddle
// nodes.
int fewest_neighbours(const comm::Layout& layout, const Cluster& cluster) {
  const int group = layout.expert_parallel_size, node = cluster.ranks_per_node;
  int fewest = group;
  for (int rank = 0; rank < layout.world; ++rank) {
    const int group_begin = rank / group * group, node_begin = rank / node * node;
    fewest = std::min(fewest, std::min(group_begin + group, node_begin + node) - std::max(group_begin, node_begin));
  }
  return fewest;
}

double inside_seconds(const Exchange& exchange, const Gpu& gpu) {
  return static_cast<double>(exchange.inside_messages) * kInsideLatency +
         exchange.inside_bytes / gpu.inside_bytes_per_second;
}

double between_seconds(const Exchange& exchange, const Gpu& gpu) {
  return static_cast<double>(exchange.between_messages) * kBetweenLatency +
         exchange.between_bytes / gpu.between_bytes_per_second;
}

// Of messages that wait for each other.
double latency_seconds(const Exchange& exchange) {
  return static_cast<double>(exchange.inside_messages) * kInsideLatency +
         static_cast<double>(exchange.between_messages) * kBetweenLatency;
}

// All-to-alls of one layer's pass, forward or backward: rows out and back in chunks, and what goes with them.
struct Pass {
  double rows = 0;    // bytes of the buffer
  double counts = 0;  // 0: none
  double gates = 0;
};

double seconds_of(const Pass& pass, const comm::Layout& layout, const Cluster& cluster, const Route& route,
                  int64_t chunks) {
  if (layout.expert_parallel_size == 1) return 0;
  const auto n = static_cast<double>(chunks);
  double seconds = 2 * n * all_to_all(pass.rows / n, layout, cluster, route).seconds;
  for (const double bytes : {pass.counts, pass.gates}) {
    if (bytes > 0) seconds += all_to_all(bytes, layout, cluster, route).seconds;
  }
  return seconds;
}

// What sending adds to the time of the experts' products, when both go on in `chunks` parts: the first part's rows and
// the last one's results meet no product, and the products of one part no transfer.
double exposed(double sending, double products, int64_t chunks) {
  const auto n = static_cast<double>(chunks);
  return std::max(sending + products / n, products + sending / n) - products;
}

// Of all layers in one micro-batch.
struct Sending {
  double forward = 0, backward = 0;
  double exposed = 0;  // of both, what overlap leaves
};

Sending sending_of_rows(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                        const Cluster& cluster, const Route& route, double experts_seconds) {
  if (moe_layers(config.model) == 0) return {};
  const LayerBuffers buffers = layer_buffers(config, compute);
  const auto rows = static_cast<double>(buffers.buffer()), gates = static_cast<double>(buffers.gates);
  const int64_t chunks = overlap_chunks(config, layout);
  const Pass out_and_back{.rows = rows, .counts = static_cast<double>(buffers.counts), .gates = gates};
  const double forward = seconds_of(out_and_back, layout, cluster, route, chunks);
  const double backward = seconds_of({.rows = rows, .gates = gates}, layout, cluster, route, chunks);
  const auto layers = static_cast<double>(moe_layers(config.model));
  const auto passes = static_cast<double>(forward_passes(config));
  // A backward pass has two products for every one of a forward pass.
  const double products = experts_seconds / layers / (passes + 2);
  return {.forward = layers * passes * forward,
          .backward = layers * backward,
          .exposed = layers * (passes * exposed(forward, products, chunks) + exposed(backward, 2 * products, chunks))};
}

// A rank's ops of a step of that many micro-batches, and among them the experts' products.
struct Floors {
  double all = 0, experts = 0;
};

Floors floors_of(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Gpu& gpu,
                 int64_t micro_batches) {
  Floors floors;
  for (const OpWork& row :
       work_of_step(with_micro_batches(config, layout, micro_batches), DeviceKind::kCuda, compute, layout)) {
    const double seconds = static_cast<double>(row.calls) * floor_seconds(row.cost, gpu);
    floors.all += seconds;
    if (row.cost.op.starts_with("grouped_")) floors.experts += seconds;
  }
  return floors;
}

enum class Pieces : uint8_t { kBuckets, kWhole };

int64_t calls_for(int64_t elements, int ranks, Pieces pieces) {
  if (pieces == Pieces::kWhole) return std::min<int64_t>(elements, 1);
  const int64_t bucket = nn::bucket_elements_for(ranks);
  return (elements + bucket - 1) / bucket;
}

// Calls for vectors of equal kind, and their bytes around rings of `ranks` ranks.
struct Reduction {
  int64_t calls = 0;
  Exchange exchange;
  double latency_seconds = 0;  // of exchange.seconds
};

Reduction reduction(const HeldElements::Of& held, double matrix_bytes, int ranks, int stride, const Cluster& cluster,
                    Pieces pieces) {
  Reduction out;
  if (ranks == 1) return out;
  for (const auto& [elements, bytes] : {std::pair(held.matrices, matrix_bytes), std::pair(held.others, 4.0)}) {
    const int64_t calls = calls_for(elements, ranks, pieces);
    if (calls == 0) continue;
    const double vector = bytes * static_cast<double>(elements);
    const Exchange one = ring(vector / static_cast<double>(calls), ranks, stride, cluster);
    out.calls += calls;
    out.exchange.inside_bytes += static_cast<double>(calls) * one.inside_bytes;
    out.exchange.between_bytes += static_cast<double>(calls) * one.between_bytes;
    out.exchange.seconds += static_cast<double>(calls) * one.seconds;
    out.latency_seconds += static_cast<double>(calls) * latency_seconds(one);
  }
  return out;
}

struct Reductions {
  Reduction dense, experts;

  double seconds() const { return dense.exchange.seconds + experts.exchange.seconds; }
  double latency() const { return dense.latency_seconds + experts.latency_seconds; }
  int64_t calls() const { return dense.calls + experts.calls; }
};

Reductions reductions(const train::RunConfig& config, const comm::Layout& layout, double matrix_bytes,
                      const Cluster& cluster, Pieces pieces = Pieces::kBuckets) {
  const HeldElements held = held_elements(config.model, layout);
  return {.dense = reduction(held.dense, matrix_bytes, layout.world, 1, cluster, pieces),
          .experts =
              reduction(held.experts, matrix_bytes, layout.replicas(), layout.expert_parallel_size, cluster, pieces)};
}

}  // namespace

Exchange all_to_all(double buffer_bytes, const comm::Layout& layout, const Cluster& cluster, const Route& route) {
  const int group = layout.expert_parallel_size;
  Exchange out;
  if (route.two_hops) {
    const int local = route.ranks_per_node, nodes = group / local;
    out.inside_bytes = buffer_bytes * (local - 1) / local;
    out.between_bytes = buffer_bytes * (nodes - 1) / nodes;
    out.inside_messages = local - 1;
    out.between_messages = nodes - 1;
    out.seconds = inside_seconds(out, *cluster.gpu) + between_seconds(out, *cluster.gpu);
    return out;
  }
  const int local = fewest_neighbours(layout, cluster);
  out.inside_bytes = buffer_bytes * (local - 1) / group;
  out.between_bytes = buffer_bytes * (group - local) / group;
  out.inside_messages = local - 1;
  out.between_messages = group - local;
  out.seconds = std::max(inside_seconds(out, *cluster.gpu), between_seconds(out, *cluster.gpu));
  return out;
}

Exchange ring(double bytes, int ranks, int stride, const Cluster& cluster) {
  Exchange out;
  if (ranks == 1) return out;
  const int local = std::clamp(cluster.ranks_per_node / stride, 1, ranks), nodes = (ranks + local - 1) / local;
  const double sent = bytes * (ranks - 1) / ranks;
  // A node's ranks begin at different places of as many rings, so that each uses its own adapter for its share.
  out.between_bytes = nodes == 1 ? 0 : sent / local;
  out.inside_bytes = sent - out.between_bytes;
  out.inside_messages = ranks - nodes;
  out.between_messages = nodes - 1;
  out.seconds = std::max(out.inside_bytes / cluster.gpu->inside_bytes_per_second,
                         out.between_bytes / cluster.gpu->between_bytes_per_second) +
                latency_seconds(out);
  return out;
}

RankWork work_of_rank(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Gpu& gpu) {
  const Floors one = floors_of(config, layout, compute, gpu, 1), two = floors_of(config, layout, compute, gpu, 2);
  RankWork work;
  work.micro_batch_seconds = two.all - one.all;
  work.experts_seconds = two.experts - one.experts;
  work.update_seconds = one.all - work.micro_batch_seconds;
  return work;
}

ExpertProduct expert_product(const train::RunConfig& config, const comm::Layout& layout) {
  const nn::MoeConfig& moe = config.model.moe;
  ExpertProduct out;
  if (moe.every_n_layers == 0) return out;
  out.rows = layer_buffers(config, DType::kF32).rows / moe.experts;
  const int64_t up = ops::pre_activation_width(config.model.ffn.activation, moe.expert_hidden_size);
  out.columns = std::min({up, config.model.sub_token_size(), moe.expert_hidden_size});
  out.products = layout.expert_parallel_size == 1
                     ? moe.experts
                     : moe.experts / layout.expert_parallel_size / overlap_chunks(config, layout);
  const auto tiles = [](int64_t extent) { return (extent + kProductTile - 1) / kProductTile; };
  out.tiles = out.products * tiles(out.rows) * tiles(out.columns);
  return out;
}

ClusterTimes times_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                           const Cluster& cluster, const Route& route) {
  ClusterTimes out;
  out.micro_batches = micro_batches_of_rank(config, layout.world);
  out.work = work_of_rank(config, layout, compute, *cluster.gpu);
  out.model_flops = static_cast<double>(config.train.batch_tokens) *
                    train::training_flops_per_token(config.model, config.data.sequence_length);
  const Sending rows = sending_of_rows(config, layout, compute, cluster, route, out.work.experts_seconds);
  out.all_to_all_seconds = rows.forward + rows.backward;
  out.exposed_seconds = rows.exposed;
  const Reductions scatter = reductions(config, layout, 4, cluster);
  const Reductions gather = reductions(config, layout, static_cast<double>(size_of(compute)), cluster);
  out.buckets = scatter.calls();
  out.reduction_latency_seconds = scatter.latency();
  out.reduce_scatter_seconds = scatter.seconds();
  out.all_gather_seconds = gather.seconds();
  if (out.buckets == 0) return out;
  out.whole_reduction_seconds =
      reductions(config, layout, 4, cluster, Pieces::kWhole).seconds() +
      reductions(config, layout, static_cast<double>(size_of(compute)), cluster, Pieces::kWhole).seconds();
  // Buckets leave during the last micro-batch's backward pass, two thirds of it, where rows leave them room; the last
  // one after it.
  const double room = std::max(0.0, out.work.micro_batch_seconds * 2 / 3 - rows.backward);
  out.exposed_reduce_seconds =
      std::max(out.reduce_scatter_seconds - room, out.reduce_scatter_seconds / static_cast<double>(out.buckets));
  return out;
}

std::vector<TransferRow> transfers_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                                           const Cluster& cluster, const Route& route) {
  std::vector<TransferRow> rows;
  const LayerBuffers buffers = layer_buffers(config, compute);
  const int64_t times = micro_batches_of_rank(config, layout.world) * moe_layers(config.model);
  const int64_t forward = times * forward_passes(config), chunks = times > 0 ? overlap_chunks(config, layout) : 0;
  const auto add = [&](const char* name, int64_t bytes, int64_t count, int64_t calls) {
    if (layout.expert_parallel_size == 1 || count == 0) return;
    const Exchange one = all_to_all(static_cast<double>(bytes), layout, cluster, route);
    const auto n = static_cast<double>(count);
    rows.push_back({name, count * calls, n * one.inside_bytes, n * one.between_bytes});
  };
  add("rows to experts", buffers.buffer(), forward, chunks);
  add("results back", buffers.buffer(), forward, chunks);
  add("counts", buffers.counts, forward, 1);
  add("gates", buffers.gates, forward, 1);
  add("gradients of results to experts", buffers.buffer(), times, chunks);
  add("gradients of rows back", buffers.buffer(), times, chunks);
  add("gradients of gates back", buffers.gates, times, 1);
  const auto add_reductions = [&](const Reductions& reductions, const char* dense, const char* experts) {
    for (const auto& [name, r] : {std::pair(dense, reductions.dense), std::pair(experts, reductions.experts)}) {
      if (r.calls > 0) rows.push_back({name, r.calls, r.exchange.inside_bytes, r.exchange.between_bytes});
    }
  };
  add_reductions(reductions(config, layout, 4, cluster), "gradients, reduce-scatter",
                 "experts' gradients, reduce-scatter");
  add_reductions(reductions(config, layout, static_cast<double>(size_of(compute)), cluster),
                 "updated values, all-gather", "experts' updated values, all-gather");
  return rows;
}

}  // namespace mhmoe::plan
