// The oracle's results of one training step over several micro-batches.
#pragma once

#include <span>

#include "reference/outputs.h"
#include "reference/variants.h"

namespace mhmoe::reference {

// Gradients of the step's loss: cross-entropies over the counted targets of all micro-batches, and the mean over
// micro-batches of the balance losses; cross_entropy likewise; the other results are the last micro-batch's.
inline Outputs expected_of(const nn::ModelConfig& config, const Parameters<double>& parameters,
                           std::span<const Batch> micro_batches) {
  double counted = 0, cross_entropy = 0;
  for (const Batch& batch : micro_batches) counted += static_cast<double>(batch.counted());
  const LossOptions options = {.denominator = counted, .balance_scale = 1 / static_cast<double>(micro_batches.size())};
  Outputs gradients, outputs;
  for (const Batch& batch : micro_batches) {
    const Forward<double> run = forward(config, parameters, batch, options);
    cross_entropy += run.cross_entropy;
    add_gradients(gradients, backward(config, parameters, batch, run, options));
    outputs = forward_outputs(config, run);
  }
  outputs["cross_entropy"] = {cross_entropy};
  outputs.merge(gradients);
  return outputs;
}

// Parameters that fp32 holds exactly, and with which no choice of an expert hangs on rounding: router logits of
// neighbouring ranks are at least `clear_gap` apart.
inline Parameters<double> clear_parameters(const nn::ModelConfig& config, std::span<const Batch> batches,
                                           double clear_gap = 1e-3) {
  for (uint64_t seed = 1;; ++seed) {
    const auto parameters = convert<double>(convert<float>(random_parameters(parameter_shapes(config), seed)));
    double gap = std::numeric_limits<double>::infinity();
    for (const Batch& batch : batches) {
      gap = std::min(gap, smallest_routing_gap(config, forward(config, parameters, batch)));
    }
    if (gap > clear_gap) return parameters;
    MHMOE_CHECK(seed < 1000, "no draw of parameters routes clearly");
  }
}

// Different sizes and counts of targets; the last counts none.
inline std::vector<Batch> uneven_batches(const nn::ModelConfig& config) {
  std::vector<Batch> batches = {random_batch(config, 2, 4, false, 1), random_batch(config, 1, 4, true, 2),
                                random_batch(config, 2, 4, false, 3)};
  for (int64_t& target : batches.back().targets) target = -1;
  return batches;
}

}  // namespace mhmoe::reference
