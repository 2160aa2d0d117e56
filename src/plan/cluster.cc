#include "plan/cluster.h"

#include <algorithm>
#include <bit>

#include "comm/hierarchy.h"
#include "plan/parameters.h"
#include "train/gradient_tree.h"
#include "train/group_options.h"

namespace mhmoe::plan {
namespace {

std::string divisors(int64_t of) {
  std::string low, high;
  for (int64_t d = 1; d * d <= of; ++d) {
    if (of % d != 0) continue;
    low += (low.empty() ? "" : ", ") + std::to_string(d);
    if (d * d != of) high = fmt::format(", {}{}", of / d, high);
  }
  return low + high;
}

// Of a buffer with an equal part for each of the ranks.
int64_t sent(int64_t buffer, int64_t ranks) {
  return buffer * (ranks - 1) / ranks;
}

int64_t all_to_all_bytes(int64_t buffer, const comm::Layout& layout, const Route& route) {
  if (!route.two_hops) return sent(buffer, layout.expert_parallel_size);
  return sent(buffer, route.ranks_per_node) + sent(buffer, layout.expert_parallel_size / route.ranks_per_node);
}

}  // namespace

void check_cluster(const Cluster& cluster) {
  if (cluster.ranks <= cluster.ranks_per_node || cluster.ranks % cluster.ranks_per_node == 0) return;
  const int below = cluster.ranks / cluster.ranks_per_node * cluster.ranks_per_node;
  fail(ExitCode::kUsage, "--ranks {}: no multiple of --gpus-per-node {}; try {} or {}", cluster.ranks,
       cluster.ranks_per_node, below, below + cluster.ranks_per_node);
}

comm::Layout layout_of(const train::RunConfig& config, int ranks) {
  const nn::MoeConfig& moe = config.model.moe;
  return comm::make_layout(ranks, 0, moe.every_n_layers == 0 ? 0 : moe.experts, config.parallel.expert_parallel_size);
}

int64_t micro_batches_of_rank(const train::RunConfig& config, int ranks) {
  const int64_t sequences = config.train.batch_tokens / config.data.sequence_length;
  const int64_t size = config.train.micro_batch_sequences, micro_batches = sequences / size;
  if (micro_batches % ranks == 0) return micro_batches / ranks;
  const std::string sizes =
      sequences % ranks == 0
          ? fmt::format("; or on {} ranks train.micro_batch_sequences {}", ranks, divisors(sequences / ranks))
          : fmt::format("; {} ranks need train.batch_tokens in multiples of {}", ranks,
                        ranks * config.data.sequence_length);
  fail(ExitCode::kConfig,
       "train.batch_tokens {}: {} sequences in micro-batches of {} (train.micro_batch_sequences) are {} micro-batches, "
       "which {} ranks cannot share evenly; possible are {} ranks{}",
       config.train.batch_tokens, sequences, size, micro_batches, ranks, divisors(micro_batches), sizes);
}

train::RunConfig with_micro_batches(const train::RunConfig& config, const comm::Layout& layout, int64_t micro_batches) {
  train::RunConfig out = config;
  out.train.batch_tokens =
      micro_batches * layout.world * config.train.micro_batch_sequences * config.data.sequence_length;
  return out;
}

HeldElements held_elements(const nn::ModelConfig& model, const comm::Layout& layout) {
  nn::ModelConfig bare = model;
  bare.attention_bias = bare.ffn.bias = bare.moe.projection_bias = false;
  const ParametersByPart all = count_parameters(model), without_biases = count_parameters(bare);
  HeldElements held;
  held.dense.matrices = without_biases.non_expert() - all.norms - all.router;
  held.dense.others = all.non_expert() - held.dense.matrices;
  held.experts.matrices = without_biases.experts / layout.expert_parallel_size;
  held.experts.others = (all.experts - without_biases.experts) / layout.expert_parallel_size;
  return held;
}

int64_t moe_layers(const nn::ModelConfig& model) {
  return model.moe.every_n_layers == 0 ? 0 : model.layers / model.moe.every_n_layers;
}

int64_t forward_passes(const train::RunConfig& config) {
  return config.train.recompute == train::Recompute::kBlock ? 2 : 1;
}

LayerBuffers layer_buffers(const train::RunConfig& config, DType compute) {
  const nn::MoeConfig& moe = config.model.moe;
  if (moe.every_n_layers == 0) return {};
  const int64_t sub_tokens = config.train.micro_batch_sequences * config.data.sequence_length * moe.heads;
  const int64_t capacity = nn::expert_capacity(moe, moe.capacity_factor, sub_tokens);
  LayerBuffers out;
  out.rows = capacity > 0 ? moe.experts * capacity : sub_tokens * moe.top_k;
  out.row_bytes = config.model.sub_token_size() * static_cast<int64_t>(size_of(compute));
  out.counts = moe.experts * static_cast<int64_t>(sizeof(int32_t));
  out.gates = out.rows * static_cast<int64_t>(sizeof(float));
  return out;
}

bool has_two_hops(const comm::Layout& layout, int ranks_per_node) {
  const int group = layout.expert_parallel_size;
  return ranks_per_node > 1 && group > ranks_per_node && group % ranks_per_node == 0;
}

Route route_of(const train::RunConfig& config, const comm::Layout& layout, DType compute, int ranks_per_node) {
  Route route{.two_hops = false, .ranks_per_node = ranks_per_node};
  if (!has_two_hops(layout, ranks_per_node) || !config.model.moe.capacity_factor) return route;
  const comm::NodeGrid grid{.nodes = layout.expert_parallel_size / ranks_per_node, .ranks_per_node = ranks_per_node};
  const comm::GroupOptions options = train::group_options(config, compute, layout, {});
  route.two_hops = comm::use_hierarchy(options.hierarchical, grid, options.message_bytes);
  return route;
}

StepTraffic traffic_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                            const Route& route, const HeldElements& held) {
  const LayerBuffers layer = layer_buffers(config, compute);
  const auto moved = [&](int64_t buffer) { return all_to_all_bytes(buffer, layout, route); };
  const int64_t forward = 2 * moved(layer.buffer()) + moved(layer.counts) + moved(layer.gates);
  const int64_t backward = 2 * moved(layer.buffer()) + moved(layer.gates);
  const auto matrix = static_cast<int64_t>(size_of(compute));
  StepTraffic traffic{};
  const auto of = [&](Communicator::Kind kind) -> int64_t& { return traffic[static_cast<size_t>(kind)]; };
  of(Communicator::Kind::kAllToAll) = micro_batches_of_rank(config, layout.world) * moe_layers(config.model) *
                                      (forward_passes(config) * forward + backward);
  const auto add_parameters = [&](const HeldElements::Of& elements, int64_t ranks) {
    of(Communicator::Kind::kReduceScatter) += sent(4 * elements.matrices, ranks) + sent(4 * elements.others, ranks);
    of(Communicator::Kind::kAllGather) += sent(matrix * elements.matrices, ranks) + sent(4 * elements.others, ranks);
  };
  add_parameters(held.dense, layout.world);
  add_parameters(held.experts, layout.replicas());
  return traffic;
}

StepTraffic traffic_of_step(const train::RunConfig& config, const comm::Layout& layout, DType compute,
                            const Route& route) {
  return traffic_of_step(config, layout, compute, route, held_elements(config.model, layout));
}

int64_t invariant_gradients(const HeldElements& held, const comm::Layout& layout, int64_t micro_batches) {
  const auto power_of_two = [](int64_t n) { return std::has_single_bit(static_cast<uint64_t>(n)); };
  if (!power_of_two(micro_batches) || !power_of_two(layout.world)) return 0;
  const int64_t levels = train::tree_levels(micro_batches);
  return held.dense.total() * (levels - 1) + held.experts.total() * (layout.expert_parallel_size * levels - 1);
}

int64_t overlap_chunks(const train::RunConfig& config, const comm::Layout& layout) {
  return std::min(config.parallel.overlap_chunks, config.model.moe.experts / layout.expert_parallel_size);
}

double hop_buffers(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Route& route) {
  if (!route.two_hops) return 0;
  const int64_t local = config.model.moe.experts / layout.expert_parallel_size, chunks = overlap_chunks(config, layout);
  const int64_t largest = (local + chunks - 1) / chunks;
  const auto rows = static_cast<double>(layer_buffers(config, compute).buffer() / local * largest);
  return (chunks == 1 ? 2 : 3) * rows;
}

RankMemory memory_of_rank(const train::RunConfig& config, const comm::Layout& layout, DType compute, const Route& route,
                          const train::MemoryNeed& need) {
  const HeldElements held = held_elements(config.model, layout);
  const auto matrices = static_cast<double>(held.dense.matrices + held.experts.matrices);
  const auto others = static_cast<double>(held.dense.others + held.experts.others);
  const auto own_share = [&](int64_t dense, int64_t experts) {
    return static_cast<double>(dense) / layout.world + static_cast<double>(experts) / layout.replicas();
  };
  const bool half = compute != DType::kF32;
  RankMemory out;
  out.values = 4 * (half ? others : matrices + others);
  out.copies = half ? 2 * matrices : 0;
  out.gradients = 4 * (matrices + others);
  out.masters = half ? 4 * own_share(held.dense.matrices, held.experts.matrices) : 0;
  out.moments = 8 * own_share(held.dense.total(), held.experts.total());
  const auto received = need.step_by_name.find("received expert rows");
  out.received = received == need.step_by_name.end() ? 0 : static_cast<double>(received->second);
  out.activations = static_cast<double>(need.step_bytes) - out.received;
  out.invariant =
      4 * static_cast<double>(invariant_gradients(held, layout, micro_batches_of_rank(config, layout.world)));
  if (layout.expert_parallel_size == 1) return out;

  const LayerBuffers layer = layer_buffers(config, compute);
  const auto buffer = static_cast<double>(layer.buffer()), gates = static_cast<double>(layer.gates);
  // Gradients of results and of rows, and of gates, at both ends; a hop's rows on their way.
  out.transfers = 4 * buffer + 2 * gates + hop_buffers(config, layout, compute, route);
  if (config.model.moe.capacity_factor.has_value()) return out;
  const int64_t layers = moe_layers(config.model);
  const auto saved_layers = static_cast<double>(forward_passes(config) == 1 ? layers : std::min<int64_t>(1, layers));
  const auto row = static_cast<double>(layer.row_bytes);
  const int64_t pre = ops::pre_activation_width(config.model.ffn.activation, config.model.moe.expert_hidden_size) *
                      static_cast<int64_t>(size_of(compute));
  // A row of another rank: kept are itself, its gate and its pre-activation; at work two gradients and the gate's.
  const double bytes_a_row = saved_layers * (row + 4 + static_cast<double>(pre)) + 2 * row + 4;
  // Experts' activations are there for the rows of one source and one chunk: an even part of them, or all.
  const auto rows = static_cast<double>(layer.rows);
  const double pieces = static_cast<double>(layout.expert_parallel_size * overlap_chunks(config, layout));
  const double activation =
      static_cast<double>(config.model.moe.expert_hidden_size) * static_cast<double>(size_of(compute));
  out.imbalance = (layout.expert_parallel_size - 1) * rows * bytes_a_row + (rows - rows / pieces) * activation;
  return out;
}

}  // namespace mhmoe::plan
