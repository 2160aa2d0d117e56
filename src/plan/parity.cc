#include "plan/parity.h"

#include <algorithm>
#include <cmath>

#include "plan/parameters.h"

namespace mhmoe::plan {
namespace {

// The layer's cost is a polynomial in the inner width m and the number of experts E:
//   parameters = fixed + E (router + base + slope m),   flops = fixed + router E + slope m.
struct Coefficients {
  double parameters_fixed, expert_base, expert_slope;
  double flops_fixed, flops_per_expert, flops_slope;
};

Coefficients coefficients(const nn::ModelConfig& config, bool ignore_small_terms) {
  const LayerCost none = moe_layer_cost(config, {0, 0}, ignore_small_terms);
  const LayerCost empty_expert = moe_layer_cost(config, {0, 1}, ignore_small_terms);
  const LayerCost unit_expert = moe_layer_cost(config, {1, 1}, ignore_small_terms);
  return {.parameters_fixed = none.parameters,
          .expert_base = empty_expert.parameters - none.parameters,
          .expert_slope = unit_expert.parameters - empty_expert.parameters,
          .flops_fixed = none.flops,
          .flops_per_expert = empty_expert.flops - none.flops,
          .flops_slope = unit_expert.flops - empty_expert.flops};
}

void require_positive(double value, const char* what, const char* why) {
  if (std::isfinite(value) && value > 0) return;
  fail(ExitCode::kConfig, "no {} matches the baseline: {}", what, why);
}

constexpr const char* kProjectionsTooLarge =
    "the head and merge layers and the router alone cost more than the baseline's layer; use a larger baseline, or "
    "switch head_layer or merge_layer off";

double width_for_flops(const Coefficients& c, double flops, double experts) {
  return (flops - c.flops_fixed - c.flops_per_expert * experts) / c.flops_slope;
}

double width_for_parameters(const Coefficients& c, double parameters, double experts) {
  return ((parameters - c.parameters_fixed) / experts - c.expert_base) / c.expert_slope;
}

double experts_for_parameters(const Coefficients& c, double parameters, double width) {
  return (parameters - c.parameters_fixed) / (c.expert_base + c.expert_slope * width);
}

// Both equations: with m from the FLOPs, E (a - b E) = p, of which the smaller root is the one with wide experts.
ExpertShape solve_both(const Coefficients& c, const LayerCost& target) {
  const double a = c.expert_base + c.expert_slope * width_for_flops(c, target.flops, 0);
  const double b = c.expert_slope * c.flops_per_expert / c.flops_slope;
  const double p = target.parameters - c.parameters_fixed;
  require_positive(width_for_flops(c, target.flops, 0), "expert_hidden_size", kProjectionsTooLarge);
  require_positive(p, "number of experts", kProjectionsTooLarge);
  const double discriminant = a * a - 4 * b * p;
  require_positive(discriminant + 1e-300, "pair of expert_hidden_size and experts",
                   "the router grows faster with more experts than they can shrink");
  // 2p / (a + root) is (a - root) / 2b without the cancellation, and also right for b = 0.
  const double experts = 2 * p / (a + std::sqrt(discriminant));
  return {width_for_flops(c, target.flops, experts), experts};
}

ExpertShape solve(const Coefficients& c, const LayerCost& target, const nn::ModelConfig& baseline,
                  const MatchOptions& options) {
  if (options.what == MatchWhat::kBoth) return solve_both(c, target);
  const int64_t own = baseline.moe.every_n_layers > 0 ? baseline.moe.experts : 1;
  ExpertShape shape{.experts = static_cast<double>(options.experts.value_or(own))};
  if (options.expert_hidden_size) {
    shape.hidden_size = static_cast<double>(*options.expert_hidden_size);
    if (options.what == MatchWhat::kFlops) {
      fail(ExitCode::kUsage,
           "FLOPs hardly depend on the number of experts; leave --expert-hidden-size out, or match parameters");
    }
    shape.experts = experts_for_parameters(c, target.parameters, shape.hidden_size);
  } else {
    shape.hidden_size = options.what == MatchWhat::kFlops ? width_for_flops(c, target.flops, shape.experts)
                                                          : width_for_parameters(c, target.parameters, shape.experts);
  }
  return shape;
}

// The whole numbers at or next to `exact` that are multiples of `step`, at least one step.
std::vector<int64_t> around(double exact, int64_t step) {
  const double units = exact / static_cast<double>(step);
  std::vector<int64_t> out;
  for (const double rounded : {std::floor(units + 1e-9), std::ceil(units - 1e-9)}) {
    out.push_back(std::max<int64_t>(1, static_cast<int64_t>(rounded)) * step);
  }
  return out;
}

Candidate make_candidate(const nn::ModelConfig& shape, const LayerCost& target, int64_t width, int64_t experts,
                         bool ignore_small_terms) {
  Candidate out;
  out.expert_hidden_size = width;
  out.experts = experts;
  out.cost = moe_layer_cost(shape, {static_cast<double>(width), static_cast<double>(experts)}, ignore_small_terms);
  out.parameters_residual = out.cost.parameters / target.parameters - 1;
  out.flops_residual = out.cost.flops / target.flops - 1;
  return out;
}

double worst_residual(const Candidate& candidate, MatchWhat what) {
  const double p = std::abs(candidate.parameters_residual), f = std::abs(candidate.flops_residual);
  if (what == MatchWhat::kParameters) return p;
  return what == MatchWhat::kFlops ? f : std::max(p, f);
}

// Widths that hardware likes around the exact one; for each the experts around what the parameters then ask for, and
// the nearest multiples of 8, which spread over devices.
std::vector<Candidate> candidates_near(const nn::ModelConfig& shape, const Coefficients& c, const LayerCost& target,
                                       const ExpertShape& exact, const MatchOptions& options) {
  std::vector<int64_t> widths;
  for (const int64_t step : {64, 8}) {
    for (const int64_t width : around(exact.hidden_size, step)) widths.push_back(width);
  }
  if (options.expert_hidden_size) widths = {*options.expert_hidden_size};
  std::vector<Candidate> out;
  for (const int64_t width : widths) {
    std::vector<int64_t> counts = {std::llround(exact.experts)};
    if (options.what == MatchWhat::kBoth || options.expert_hidden_size) {
      const double experts = experts_for_parameters(c, target.parameters, static_cast<double>(width));
      counts = around(experts, 1);
      for (const int64_t count : around(experts, 8)) counts.push_back(count);
    }
    for (const int64_t count : counts) {
      if (count < shape.moe.top_k) continue;
      const bool known = std::any_of(out.begin(), out.end(), [&](const Candidate& other) {
        return other.expert_hidden_size == width && other.experts == count;
      });
      if (!known) out.push_back(make_candidate(shape, target, width, count, options.ignore_small_terms));
    }
  }
  std::stable_sort(out.begin(), out.end(), [&](const Candidate& x, const Candidate& y) {
    return worst_residual(x, options.what) < worst_residual(y, options.what);
  });
  return out;
}

}  // namespace

LayerCost moe_layer_cost(const nn::ModelConfig& config, ExpertShape shape, bool ignore_small_terms) {
  const nn::MoeConfig& moe = config.moe;
  const auto d = static_cast<double>(config.hidden_size);
  const auto sub = static_cast<double>(config.sub_token_size());
  const auto shared = static_cast<double>(moe.shared_expert_hidden_size);
  const int projections = moe.has_head_layer() + moe.has_merge_layer();
  const double routed_rows = static_cast<double>(moe.heads) * static_cast<double>(moe.top_k);

  const double expert = feed_forward_weights(config.ffn, sub, shape.hidden_size);
  const double shared_expert = feed_forward_weights(config.ffn, d, shared);
  LayerCost cost;
  cost.parameters = projections * d * d + shape.experts * expert + shared_expert;
  cost.flops = 2 * (projections * d * d + routed_rows * expert + shared_expert);
  if (ignore_small_terms) return cost;

  cost.parameters += (moe.projection_bias ? projections * d : 0) + shape.experts * sub +
                     shape.experts * feed_forward_biases(config.ffn, sub, shape.hidden_size) +
                     (shared > 0 ? feed_forward_biases(config.ffn, d, shared) : 0);
  cost.flops += 2 * d * shape.experts;  // the router, on every sub-token
  return cost;
}

LayerCost layer_cost(const nn::ModelConfig& config, bool ignore_small_terms) {
  if (config.moe.every_n_layers > 0) {
    return moe_layer_cost(config,
                          {static_cast<double>(config.moe.expert_hidden_size), static_cast<double>(config.moe.experts)},
                          ignore_small_terms);
  }
  const auto d = static_cast<double>(config.hidden_size), m = static_cast<double>(config.ffn.hidden_size);
  const double weights = feed_forward_weights(config.ffn, d, m);
  return {.parameters = weights + (ignore_small_terms ? 0 : feed_forward_biases(config.ffn, d, m)),
          .flops = 2 * weights};
}

Match match(const nn::ModelConfig& baseline, const nn::ModelConfig& shape, const MatchOptions& options) {
  Match out;
  out.baseline = layer_cost(baseline, options.ignore_small_terms);
  const Coefficients c = coefficients(shape, options.ignore_small_terms);
  out.exact = solve(c, out.baseline, baseline, options);
  require_positive(out.exact.hidden_size, "expert_hidden_size", kProjectionsTooLarge);
  require_positive(out.exact.experts, "number of experts", kProjectionsTooLarge);
  out.candidates = candidates_near(shape, c, out.baseline, out.exact, options);
  if (out.candidates.empty()) {
    fail(ExitCode::kConfig,
         "equal size leaves {:.2f} experts, fewer than top_k, {}; use a larger baseline or a smaller top_k",
         out.exact.experts, shape.moe.top_k);
  }
  return out;
}

Candidate own_candidate(const nn::ModelConfig& model, const LayerCost& baseline, const MatchOptions& options) {
  return make_candidate(model, baseline, model.moe.expert_hidden_size, model.moe.experts, options.ignore_small_terms);
}

nn::ModelConfig with_heads(const nn::ModelConfig& baseline, int64_t heads, int64_t top_k) {
  nn::ModelConfig out = baseline;
  out.moe.heads = heads;
  out.moe.top_k = top_k;
  out.moe.head_layer = std::nullopt;
  out.moe.merge_layer = std::nullopt;
  if (out.moe.every_n_layers == 0) out.moe.every_n_layers = 1;
  return out;
}

}  // namespace mhmoe::plan
