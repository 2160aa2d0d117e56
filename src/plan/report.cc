#include "plan/report.h"

#include <algorithm>
#include <vector>

#include "plan/cluster.h"
#include "plan/parameters.h"
#include "train/flops.h"
#include "train/gradient_tree.h"

namespace mhmoe::plan {
namespace {

// 1234567 as "1,234,567".
std::string grouped(int64_t value) {
  std::string digits = std::to_string(value);
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

std::string percent(double fraction) {
  return fmt::format("{:+.2f} %", 100 * fraction);
}

std::string layers_text(const nn::ModelConfig& model) {
  int64_t moe_layers = 0;
  for (int64_t layer = 0; layer < model.layers; ++layer) moe_layers += model.is_moe_layer(layer);
  std::string out = fmt::format("{} layers of width {}", model.layers, model.hidden_size);
  if (moe_layers == 0) return out + ", dense";
  const nn::MoeConfig& moe = model.moe;
  return out + fmt::format(", {} of them MoE: {} experts of width {}, top-{}, {} head{}", moe_layers, moe.experts,
                           moe.expert_hidden_size, moe.top_k, moe.heads, moe.heads == 1 ? "" : "s");
}

struct PartRow {
  const char* name;
  int64_t parameters, active;
  double flops;
};

std::vector<PartRow> part_rows(const nn::ModelConfig& model, int64_t sequence_length) {
  const ParametersByPart all = count_parameters(model), active = count_active_parameters(model);
  const train::FlopsByPart flops = train::forward_flops_per_token(model, sequence_length);
  return {{"embedding", all.embedding, active.embedding, 0},
          {"attention projections", all.attention, active.attention, flops.attention_projections},
          {"attention scores and values", 0, 0, flops.attention},
          {"norms", all.norms, active.norms, 0},
          {"dense feed-forwards", all.dense_ffn, active.dense_ffn, flops.dense_ffn},
          {"head and merge layers", all.head_and_merge, active.head_and_merge, flops.head_and_merge},
          {"routers", all.router, active.router, flops.router},
          {"experts", all.experts, active.experts, flops.experts},
          {"shared experts", all.shared_expert, active.shared_expert, flops.shared_expert},
          {model.tie_embeddings ? "output layer (tied)" : "output layer", all.lm_head, active.lm_head, flops.lm_head},
          {"total", all.total(), active.total(), flops.total()},
          {"  without experts", all.non_expert(), active.non_expert(), flops.total() - flops.experts}};
}

void append_bytes(std::string& out, const char* title, size_t total,
                  const std::map<std::string, size_t, std::less<>>& by_name) {
  out += fmt::format("{:<34}{:>14}\n", title, bytes_text(total));
  std::vector<std::pair<size_t, std::string>> sorted;
  sorted.reserve(by_name.size());
  for (const auto& [name, bytes] : by_name) sorted.emplace_back(bytes, name);
  std::sort(sorted.rbegin(), sorted.rend());
  for (const auto& [bytes, name] : sorted) {
    if (bytes > 0) out += fmt::format("  {:<32}{:>14}\n", name, bytes_text(bytes));
  }
}

// What parallel.width_invariant takes, or would.
std::string invariant_text(const train::RunConfig& config, const train::MemoryNeed& need) {
  const auto line = [](const char* name, size_t bytes) {
    return bytes == 0 ? "" : fmt::format("{:<34}{:>14}\n", name, bytes_text(bytes));
  };
  if (!config.parallel.width_invariant) {
    const int64_t more = invariant_gradients(held_elements(config.model, {}), {}, micro_batches_of_rank(config, 1));
    return line("width_invariant would add", static_cast<size_t>(more) * sizeof(float));
  }
  size_t bytes = 0;
  for (const char* name : {train::kPartialSumsName, train::kOtherRanksName}) {
    if (const auto found = need.state_by_name.find(name); found != need.state_by_name.end()) bytes += found->second;
  }
  return line("of it for width_invariant", bytes);
}

const char* what_text(MatchWhat what) {
  switch (what) {
    case MatchWhat::kParameters:
      return "parameters";
    case MatchWhat::kFlops:
      return "FLOPs";
    case MatchWhat::kBoth:
      return "parameters and FLOPs";
  }
  return "?";
}

// The whole model's parameters against the baseline's, both without embedding and output layer (a vocabulary is not
// needed to size experts).
double body_residual(const nn::ModelConfig& baseline, nn::ModelConfig model, const Candidate& candidate) {
  model.moe.expert_hidden_size = candidate.expert_hidden_size;
  model.moe.experts = candidate.experts;
  nn::ModelConfig base = baseline;
  base.vocab_size = model.vocab_size = 0;
  return static_cast<double>(count_parameters(model).total()) / static_cast<double>(count_parameters(base).total()) - 1;
}

// The best few, and the best of those that spread evenly: widths in multiples of 64, experts in multiples of 8.
std::vector<Candidate> worth_showing(const std::vector<Candidate>& sorted) {
  constexpr size_t kBest = 5;
  std::vector<Candidate> out(sorted.begin(), sorted.begin() + static_cast<int64_t>(std::min(kBest, sorted.size())));
  const auto add_first = [&](auto&& wanted) {
    const auto at = std::find_if(sorted.begin(), sorted.end(), wanted);
    if (at != sorted.end() && at - sorted.begin() >= static_cast<int64_t>(kBest)) out.push_back(*at);
  };
  add_first([](const Candidate& c) { return c.expert_hidden_size % 64 == 0; });
  add_first([](const Candidate& c) { return c.experts % 8 == 0; });
  return out;
}

}  // namespace

std::string scaled(double value) {
  const char* const prefixes[] = {"", " k", " M", " G", " T", " P", " E", " Z", " Y"};
  size_t i = 0;
  while (value >= 999.95 && i + 1 < std::size(prefixes)) {
    value /= 1000;
    ++i;
  }
  return fmt::format("{:.4g}{}", value, prefixes[i]);
}

std::string bytes_text(size_t bytes) {
  if (bytes < (1 << 20)) return fmt::format("{:.1f} KiB", static_cast<double>(bytes) / 1024);
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.2f} GiB", mib / 1024);
}

std::string describe_model(const train::RunConfig& config) {
  std::string out =
      fmt::format("{}: {}, sequences of {}\n\n", config.name, layers_text(config.model), config.data.sequence_length);
  out += fmt::format("{:<30}{:>16}{:>16}{:>20}\n", "", "parameters", "active a token", "FLOPs, forward");
  const auto dash = [](bool zero, const std::string& text) { return zero ? std::string("-") : text; };
  for (const PartRow& row : part_rows(config.model, config.data.sequence_length)) {
    if (row.parameters == 0 && row.flops == 0) continue;
    out += fmt::format("{:<30}{:>16}{:>16}{:>20}\n", row.name, dash(row.parameters == 0, grouped(row.parameters)),
                       dash(row.parameters == 0, grouped(row.active)), dash(row.flops == 0, scaled(row.flops)));
  }
  const double training = train::training_flops_per_token(config.model, config.data.sequence_length);
  const auto batch = static_cast<double>(config.train.batch_tokens), steps = static_cast<double>(config.train.steps);
  out += fmt::format("\nTraining: {}FLOP a token, {}FLOP a step of {} tokens, {}FLOP in {} steps ({}tokens)\n",
                     scaled(training), scaled(training * batch), grouped(config.train.batch_tokens),
                     scaled(training * batch * steps), grouped(config.train.steps), scaled(batch * steps) + " ");
  return out;
}

std::string describe_memory(const train::RunConfig& config, const train::MemoryNeed& need, DeviceKind device,
                            DType compute) {
  std::string out =
      fmt::format("\nMemory on {} in {}, micro-batches of {} x {} tokens{}\n", to_string(device),
                  train::precision_name(compute), config.train.micro_batch_sequences, config.data.sequence_length,
                  config.train.recompute == train::Recompute::kBlock ? ", blocks recomputed" : "");
  append_bytes(out, "state, always held", need.state_bytes, need.state_by_name);
  append_bytes(out, "step, at its peak", need.step_bytes, need.step_by_name);
  out += fmt::format("{:<34}{:>14}\n", "total", bytes_text(need.state_bytes + need.step_bytes));
  return device == DeviceKind::kCpu ? out + invariant_text(config, need) : out;
}

std::string describe_match(const nn::ModelConfig& baseline, const nn::ModelConfig& shape, const MatchOptions& options,
                           bool compare) {
  const Match found = match(baseline, shape, options);
  std::string out = fmt::format("Baseline: {}\nIts {}: {} parameters, {}FLOP a token forward{}\n\n",
                                layers_text(baseline), baseline.moe.every_n_layers > 0 ? "MoE layer" : "feed-forward",
                                grouped(static_cast<int64_t>(found.baseline.parameters)), scaled(found.baseline.flops),
                                options.ignore_small_terms ? " (router and biases left out)" : "");
  out += fmt::format("Equal {} with {} head{} and top-{}: expert_hidden_size {:.2f}, experts {:.2f} exactly.\n",
                     what_text(options.what), shape.moe.heads, shape.moe.heads == 1 ? "" : "s", shape.moe.top_k,
                     found.exact.hidden_size, found.exact.experts);
  out += fmt::format("Sizes that can be built, against the baseline:\n\n{:>20}{:>10}{:>16}{:>18}{:>20}\n",
                     "expert_hidden_size", "experts", "layer FLOPs", "layer parameters", "model parameters*");
  const auto row = [&](const Candidate& c, const char* note) {
    out += fmt::format("{:>20}{:>10}{:>16}{:>18}{:>20}{}\n", c.expert_hidden_size, c.experts, percent(c.flops_residual),
                       percent(c.parameters_residual), percent(body_residual(baseline, shape, c)), note);
  };
  for (const Candidate& c : worth_showing(found.candidates)) row(c, "");
  if (compare) row(own_candidate(shape, found.baseline, options), "  <- as configured");
  return out + "\n* without embedding and output layer\n";
}

}  // namespace mhmoe::plan
