#include "train/moe_summary.h"

#include <algorithm>

namespace mhmoe::train {

MoeSummary summarize(const nn::MoeConfig& moe, std::optional<double> capacity_factor, int64_t rows,
                     std::span<const float> balance_loss, std::span<const int32_t> load) {
  MoeSummary summary;
  if (balance_loss.empty()) return summary;
  const int64_t capacity = nn::expert_capacity(moe, capacity_factor, rows);
  const auto experts = static_cast<size_t>(moe.experts);
  int64_t dropped = 0;
  int64_t assignments = 0;
  for (size_t layer = 0; layer < balance_loss.size(); ++layer) {
    int64_t layer_assignments = 0;
    int64_t busiest = 0;
    for (const int32_t expert_load : load.subspan(layer * experts, experts)) {
      layer_assignments += expert_load;
      busiest = std::max<int64_t>(busiest, expert_load);
      if (capacity_factor) dropped += std::max<int64_t>(0, expert_load - capacity);
    }
    assignments += layer_assignments;
    summary.balance_loss += balance_loss[layer];
    const double mean = static_cast<double>(layer_assignments) / static_cast<double>(experts);
    if (layer_assignments > 0) summary.load_max_over_mean += static_cast<double>(busiest) / mean;
  }
  const auto layers = static_cast<double>(balance_loss.size());
  summary.balance_loss /= layers;
  summary.load_max_over_mean /= layers;
  if (assignments > 0) summary.dropped_fraction = static_cast<double>(dropped) / static_cast<double>(assignments);
  return summary;
}

}  // namespace mhmoe::train
