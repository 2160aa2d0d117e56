#include "plan/cluster_report.h"

#include "plan/report.h"
#include "train/group_options.h"

namespace mhmoe::plan {
namespace {

std::string bytes(double count) {
  return scaled(count) + (count < 999.95 ? " B" : "B");
}

std::string milliseconds(double seconds) {
  return fmt::format("{:.3f} ms", 1e3 * seconds);
}

std::string counted(int64_t count, const char* what, const char* plural = "s") {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : plural);
}

std::string heading(const ClusterPlan& plan) {
  const train::RunConfig& config = plan.config;
  const comm::Layout& layout = plan.layout;
  const int nodes = (plan.cluster.ranks + plan.cluster.ranks_per_node - 1) / plan.cluster.ranks_per_node;
  std::string out =
      fmt::format("\nOn {} ({} of {}), {} in {}: predicted from data sheets, no GPU was measured\n",
                  counted(plan.cluster.ranks, "rank"), counted(nodes, "node"), plan.cluster.ranks_per_node,
                  plan.cluster.gpu->name, train::precision_name(plan.compute));
  if (moe_layers(config.model) > 0) {
    out += fmt::format("expert-parallel groups of {}, {} in all, {} experts a rank\n", layout.expert_parallel_size,
                       layout.replicas(), config.model.moe.experts / layout.expert_parallel_size);
  }
  return out + fmt::format("a step of {} sequences: {} of {} x {} tokens a rank\n",
                           config.train.batch_tokens / config.data.sequence_length,
                           counted(plan.times.micro_batches, "micro-batch", "es"), config.train.micro_batch_sequences,
                           config.data.sequence_length);
}

struct MemoryRow {
  const char* name;
  const char* key;
  double bytes;
};

std::vector<MemoryRow> memory_rows(const RankMemory& memory) {
  return {{"values in f32", "values", memory.values},
          {"bf16 copies", "copies", memory.copies},
          {"gradients", "gradients", memory.gradients},
          {"masters, its shard", "masters", memory.masters},
          {"moments, its shard", "moments", memory.moments},
          {"rows received, kept", "received", memory.received},
          {"activations and scratch", "activations", memory.activations}};
}

std::string memory_text(const ClusterPlan& plan) {
  const auto row = [](const char* name, double count) {
    return fmt::format("{:<34}{:>14}\n", name, bytes_text(static_cast<size_t>(count)));
  };
  std::string out = "\n" + row("Memory of a rank, at most", plan.memory.worst());
  for (const MemoryRow& r : memory_rows(plan.memory)) {
    if (r.bytes > 0) out += "  " + fmt::format("{:<32}{:>14}\n", r.name, bytes_text(static_cast<size_t>(r.bytes)));
  }
  if (plan.memory.transfers > 0) out += row("  transfer buffers of a layer, there", plan.memory.transfers);
  if (plan.memory.imbalance > 0) {
    out += row("  with rows spread evenly", plan.memory.balanced());
    out += row("  if one rank got all rows, more", plan.memory.imbalance);
  } else if (plan.layout.expert_parallel_size > 1) {
    out += "  whatever is routed where: capacity bounds the rows of every expert\n";
  }
  if (plan.memory.invariant > 0) out += row("  width_invariant (CPU only), more", plan.memory.invariant);
  return out;
}

// Node by node.
std::vector<int> nodes_of(const Cluster& cluster) {
  std::vector<int> nodes;
  for (int rank = 0; rank < cluster.ranks; ++rank) nodes.push_back(rank / cluster.ranks_per_node);
  return nodes;
}

std::string transfer_text(const ClusterPlan& plan) {
  const auto rows = transfers_of_step(plan.config, plan.layout, plan.compute, plan.cluster, plan.route);
  if (rows.empty()) return "";
  std::string out = fmt::format("\n{:<38}{:>8}{:>16}{:>16}\n", "Sent by a rank to others in a step", "calls",
                                "inside a node", "between nodes");
  double inside = 0, between = 0;
  for (const TransferRow& row : rows) {
    out += fmt::format("  {:<36}{:>8}{:>16}{:>16}\n", row.name, row.calls, bytes(row.inside_bytes),
                       bytes(row.between_bytes));
    inside += row.inside_bytes;
    between += row.between_bytes;
  }
  return out + fmt::format("  {:<36}{:>8}{:>16}{:>16}\n", "total", "", bytes(inside), bytes(between));
}

std::string route_row(const char* name, const Exchange& exchange, double size_inside, double size_between,
                      const char* note) {
  const auto messages = [](int64_t count, double size) {
    return count == 0 ? std::string("-") : fmt::format("{} x {}", count, bytes(size));
  };
  return fmt::format("  {:<16}{:>18}{:>18}{:>14}{:>14}{:>14}{}\n", name,
                     messages(exchange.inside_messages, size_inside), messages(exchange.between_messages, size_between),
                     bytes(exchange.inside_bytes), bytes(exchange.between_bytes), milliseconds(exchange.seconds), note);
}

// Sizes of messages are those of whole buffers; overlap divides them into chunks.
std::string route_text(const ClusterPlan& plan) {
  const comm::Layout& layout = plan.layout;
  if (layout.expert_parallel_size == 1) return "";
  const auto buffer = static_cast<double>(layer_buffers(plan.config, plan.compute).buffer());
  const double part = buffer / layout.expert_parallel_size;
  std::string out = fmt::format("\n{:<18}{:>18}{:>18}{:>14}{:>14}{:>14}\n", "An all-to-all", "messages inside",
                                "between", "bytes inside", "between", "at least");
  out += route_row("flat", all_to_all(buffer, layout, plan.cluster, {}), part, part,
                   plan.route.two_hops ? "" : "  <- chosen");
  const int local = plan.cluster.ranks_per_node;
  if (!has_two_hops(layout, local)) {
    return out + "  hierarchical: needs expert-parallel groups of several whole nodes\n";
  }
  const Exchange hops = all_to_all(buffer, layout, plan.cluster, {.two_hops = true, .ranks_per_node = local});
  return out + route_row("hierarchical", hops, buffer / local, part * local, plan.route.two_hops ? "  <- chosen" : "");
}

std::string step_row(const ClusterPlan& plan, const char* name, double seconds) {
  return fmt::format("  {:<24}{:>14}{:>12} tokens/s   MFU {:.1f} %\n", name, milliseconds(seconds),
                     scaled(static_cast<double>(plan.config.train.batch_tokens) / seconds), 100 * plan.mfu(seconds));
}

std::string time_text(const ClusterPlan& plan) {
  const ClusterTimes& times = plan.times;
  const auto row = [](const char* name, double seconds, const std::string& note) {
    return fmt::format("  {:<24}{:>14}   {}\n", name, milliseconds(seconds), note);
  };
  const auto n = static_cast<double>(times.micro_batches);
  std::string out = "\nTime of a step, at least\n";
  const std::string experts =
      moe_layers(plan.config.model) == 0
          ? ""
          : fmt::format(", of it experts' products {}", milliseconds(times.work.experts_seconds));
  out += row("micro-batches", n * times.work.micro_batch_seconds,
             fmt::format("{} x {}{}", times.micro_batches, milliseconds(times.work.micro_batch_seconds), experts));
  out += row("update", times.work.update_seconds, "of its shard");
  if (plan.layout.expert_parallel_size > 1) {
    out += row("all-to-all", n * times.all_to_all_seconds,
               fmt::format("overlap leaves {}", milliseconds(n * times.exposed_seconds)));
  }
  if (times.buckets > 0) {
    out += row("reduce-scatter", times.reduce_scatter_seconds,
               fmt::format("in {}, of it latency {}; overlap leaves {}", counted(times.buckets, "call"),
                           milliseconds(times.reduction_latency_seconds), milliseconds(times.exposed_reduce_seconds)));
    out += row("all-gather", times.all_gather_seconds, "after the update, not overlapped");
  }
  out += step_row(plan, "step, without overlap", times.sequential_seconds());
  out += step_row(plan, "step, with overlap", times.overlapped_seconds());
  return times.buckets == 0 ? out : out + step_row(plan, "  without buckets", times.whole_reduction_step_seconds());
}

void add_time(json::Value& out, const ClusterPlan& plan) {
  const ClusterTimes& times = plan.times;
  json::Value& seconds = out.add("seconds", json::Value::object());
  const auto n = static_cast<double>(times.micro_batches);
  seconds.add("compute", times.compute_seconds());
  seconds.add("all_to_all", n * times.all_to_all_seconds);
  seconds.add("reduce_scatter", times.reduce_scatter_seconds);
  seconds.add("all_gather", times.all_gather_seconds);
  seconds.add("reduction_latency", times.reduction_latency_seconds);
  seconds.add("step", times.sequential_seconds());
  seconds.add("step_overlapped", times.overlapped_seconds());
  seconds.add("step_without_buckets", times.whole_reduction_step_seconds());
  out.add("tokens", plan.config.train.batch_tokens);
  out.add("mfu", plan.mfu(times.sequential_seconds()));
  out.add("mfu_overlapped", plan.mfu(times.overlapped_seconds()));
  out.add("mfu_without_buckets", plan.mfu(times.whole_reduction_step_seconds()));
}

void add_transfers(json::Value& out, const ClusterPlan& plan) {
  json::Value& transfers = out.add("transfers", json::Value::array());
  for (const TransferRow& row : transfers_of_step(plan.config, plan.layout, plan.compute, plan.cluster, plan.route)) {
    json::Value& one = transfers.add(json::Value::object());
    one.add("name", row.name);
    one.add("calls", row.calls);
    one.add("inside_bytes", row.inside_bytes);
    one.add("between_bytes", row.between_bytes);
  }
}

}  // namespace

double ClusterPlan::mfu(double step_seconds) const {
  return times.model_flops / step_seconds / (cluster.ranks * cluster.gpu->flops(compute));
}

ClusterPlan plan_cluster(const train::RunConfig& config, const Cluster& cluster, DType compute) {
  check_cluster(cluster);
  const comm::Layout layout = layout_of(config, cluster.ranks);
  const Route route = route_of(config, layout, compute, cluster.ranks_per_node);
  ClusterPlan plan{.config = config,
                   .cluster = cluster,
                   .compute = compute,
                   .layout = layout,
                   .route = route,
                   .memory = {},
                   .times = {}};
  plan.times = times_of_step(config, layout, compute, cluster, route);
  plan.memory =
      memory_of_rank(config, layout, compute, route,
                     train::measure_memory(with_micro_batches(config, layout, 1), DeviceKind::kCuda, nullptr, compute,
                                           layout, train::group_options(config, compute, layout, nodes_of(cluster))));
  return plan;
}

std::string cluster_text(const ClusterPlan& plan) {
  return heading(plan) + memory_text(plan) + transfer_text(plan) + route_text(plan) + time_text(plan);
}

json::Value cluster_json(const ClusterPlan& plan) {
  json::Value out = json::Value::object();
  out.add("name", plan.config.name);
  out.add("precision", train::precision_name(plan.compute));
  out.add("gpu", plan.cluster.gpu->name);
  out.add("ranks", plan.cluster.ranks);
  out.add("ranks_per_node", plan.cluster.ranks_per_node);
  out.add("expert_parallel_size", plan.layout.expert_parallel_size);
  out.add("hierarchical", plan.route.two_hops);
  out.add("micro_batches", plan.times.micro_batches);
  out.add("micro_batch_sequences", plan.config.train.micro_batch_sequences);
  out.add("rows_of_an_expert", expert_product(plan.config, plan.layout).rows);
  json::Value& memory = out.add("memory", json::Value::object());
  for (const MemoryRow& row : memory_rows(plan.memory)) memory.add(row.key, row.bytes);
  memory.add("transfers", plan.memory.transfers);
  memory.add("width_invariant", plan.memory.invariant);
  memory.add("balanced", plan.memory.balanced());
  memory.add("worst", plan.memory.worst());
  add_transfers(out, plan);
  add_time(out, plan);
  json::Value& warnings = out.add("warnings", json::Value::array());
  for (const std::string& warning : cluster_warnings(plan)) warnings.add(warning);
  return out;
}

std::vector<std::string> cluster_warnings(const ClusterPlan& plan) {
  std::vector<std::string> out;
  const Gpu& gpu = *plan.cluster.gpu;
  if (plan.memory.worst() > gpu.memory_bytes) {
    out.push_back(fmt::format("memory: a rank may need {}, {} has {}; use smaller micro-batches or train.recompute",
                              bytes(plan.memory.worst()), gpu.name, bytes(gpu.memory_bytes)));
  }
  const ClusterTimes& times = plan.times;
  if (times.reduction_latency_seconds > times.overlapped_seconds() / 4) {
    out.push_back(fmt::format(
        "reductions: {} around up to {} ranks wait {} of their {} for single messages; use fewer ranks, or more tokens "
        "a step",
        counted(times.buckets, "call"), plan.cluster.ranks, milliseconds(times.reduction_latency_seconds),
        milliseconds(times.reduce_scatter_seconds)));
  }
  if (moe_layers(plan.config.model) == 0) return out;
  const ExpertProduct product = expert_product(plan.config, plan.layout);
  if (product.rows < kProductTile) {
    out.push_back(
        fmt::format("experts: M is {}, rows of one expert from one source, less than a tile's {}: a product "
                    "does the work of {} rows; use larger micro-batches or fewer experts",
                    product.rows, kProductTile, kProductTile));
  }
  if (product.tiles < gpu.multiprocessors) {
    out.push_back(
        fmt::format("experts: a launch of {} products of M {} x N {} has {} tiles of {} x {}, {} has {} "
                    "multiprocessors; use larger "
                    "micro-batches, or fewer parallel.overlap_chunks",
                    product.products, product.rows, product.columns, product.tiles, kProductTile, kProductTile,
                    gpu.name, gpu.multiprocessors));
  }
  return out;
}

}  // namespace mhmoe::plan
