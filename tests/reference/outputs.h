// The results of a forward and backward by the names of the golden files, and how far two programs' results differ.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "reference/model.h"

namespace mhmoe::reference {

// Whole numbers are exact in double.
using Outputs = std::map<std::string, std::vector<double>>;

inline void add_routing(Outputs& outputs, const std::string& prefix, const RouterSaved<double>& router) {
  const auto widen = [](const std::vector<int64_t>& values) {
    return std::vector<double>(values.begin(), values.end());
  };
  outputs[prefix + "balance_loss"] = {router.balance_loss};
  outputs[prefix + "gate_weight"] = router.gate_weight.values;
  outputs[prefix + "expert_index"] = widen(router.routing.expert_index);
  outputs[prefix + "slot"] = widen(router.routing.slot);
}

inline void add_gradients(Outputs& outputs, const Parameters<double>& grads) {
  for (const auto& [name, grad] : grads) {
    std::vector<double>& sum = outputs["grad." + name];
    sum.resize(grad.values.size(), 0);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += grad.values[i];
  }
}

// Everything but gradients.
inline Outputs forward_outputs(const nn::ModelConfig& config, const Forward<double>& run) {
  Outputs outputs;
  outputs["logits"] = run.logits.values;
  outputs["cross_entropy"] = {run.cross_entropy};
  for (int64_t i = 0; i < config.layers; ++i) {
    const BlockSaved<double>& block = run.blocks[static_cast<size_t>(i)];
    outputs[layer_name(i) + "output"] = block.output.values;
    if (config.is_moe_layer(i)) add_routing(outputs, layer_name(i) + "moe.", block.moe.router);
  }
  return outputs;
}

inline bool is_routing(const std::string& name) {
  return name.ends_with("expert_index") || name.ends_with("slot");
}

struct Bounds {
  double absolute;  // |a - b| <= absolute * max(1, largest |b| of the tensor)
  double own = 0;   // |a - b| <= own * largest |b| of the tensor; 0: not held
};

// What a program in fp32 is held to; routing is exact.
constexpr Bounds kSinglePrecision = {.absolute = 1e-5, .own = 1e-4};

struct Deviation {
  double value = 0;  // as a multiple of its bound: above 1 is wrong
  std::string text = "none";

  void take(const Deviation& other) {
    if (other.value > value) *this = other;
  }
};

inline Deviation deviation_of(const std::string& name, const std::vector<double>& found,
                              const std::vector<double>& expected, const Bounds& bounds) {
  constexpr double kWrong = std::numeric_limits<double>::infinity();
  if (found.size() != expected.size()) {
    return {kWrong, fmt::format("{}: {} values, not {}", name, found.size(), expected.size())};
  }
  double largest = 0, difference = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    if (!std::isfinite(found[i]) || (is_routing(name) && found[i] != expected[i])) {
      return {kWrong, fmt::format("{}: element {} is {}, not {}", name, i, found[i], expected[i])};
    }
    largest = std::max(largest, std::abs(expected[i]));
    difference = std::max(difference, std::abs(found[i] - expected[i]));
  }
  double bound = bounds.absolute * std::max(1.0, largest);
  if (bounds.own > 0 && largest > 0) bound = std::min(bound, bounds.own * largest);
  return {difference / bound,
          fmt::format("{}: {:.2e} (largest {:.2e}, bound {:.2e})", name, difference, largest, bound)};
}

// The worst of all tensors; one that only one side has is wrong.
inline Deviation deviation_of(const Outputs& found, const Outputs& expected, const Bounds& bounds) {
  constexpr double kWrong = std::numeric_limits<double>::infinity();
  Deviation worst;
  for (const auto& [name, values] : expected) {
    const auto other = found.find(name);
    worst.take(other == found.end() ? Deviation{kWrong, name + " is missing"}
                                    : deviation_of(name, other->second, values, bounds));
  }
  for (const auto& [name, values] : found) {
    if (!expected.contains(name)) worst.take({kWrong, name + " is not expected"});
  }
  return worst;
}

// The smallest difference between router logits of neighbouring ranks 1 ... k + 1: how far rounding is from flipping
// a choice.
inline double smallest_routing_gap(const nn::ModelConfig& config, const Forward<double>& run) {
  double gap = std::numeric_limits<double>::infinity();
  for (const BlockSaved<double>& block : run.blocks) {
    const Matrix<double>& p = block.moe.router.probabilities;
    for (int64_t r = 0; r < p.rows; ++r) {
      std::vector<double> row(p[r], p[r] + p.cols);
      std::sort(row.rbegin(), row.rend());
      for (int64_t j = 0; j < std::min(config.moe.top_k, p.cols - 1); ++j) {
        const auto i = static_cast<size_t>(j);
        gap = std::min(gap, std::log(row[i] / row[i + 1]));
      }
    }
  }
  return gap;
}

}  // namespace mhmoe::reference
