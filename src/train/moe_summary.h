// What the router statistics of a step come to, for logs.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "nn/model_config.h"

namespace mhmoe::train {

// Means over micro-batches and MoE layers; all zero for a dense model.
struct MoeSummary {
  double balance_loss = 0;        // 1 when perfectly even
  double load_max_over_mean = 0;  // assignments of the busiest expert over the mean
  double dropped_fraction = 0;    // assignments beyond capacity over all assignments
  double expert_activation = 0;   // share of experts with more than a tenth of the mean load
  // Assignments for the busiest of the ranks that share the experts out over the mean; 0 where none do.
  double rank_load_max_over_mean = 0;
};

// balance_loss: one a micro-batch and layer; load: [micro-batches * layers, experts], dropped assignments included;
// rows: sub-tokens of a micro-batch, which with the factor give the capacity.
// expert_ranks: that share the experts out.
MoeSummary summarize(const nn::MoeConfig& moe, std::optional<double> capacity_factor, int64_t rows,
                     std::span<const float> balance_loss, std::span<const int32_t> load, int64_t expert_ranks = 1);

}  // namespace mhmoe::train
