#include "train/moe_summary.h"

#include <algorithm>
#include <numeric>

namespace mhmoe::train {
namespace {

constexpr double kActiveShareOfMean = 0.1;

}  // namespace

MoeSummary summarize(const nn::MoeConfig& moe, std::optional<double> capacity_factor, int64_t rows,
                     std::span<const float> balance_loss, std::span<const int32_t> load) {
  MoeSummary summary;
  if (balance_loss.empty()) return summary;
  const int64_t capacity = nn::expert_capacity(moe, capacity_factor, rows);
  const auto experts = static_cast<size_t>(moe.experts);
  int64_t dropped = 0;
  int64_t active = 0;
  int64_t assignments = 0;
  for (size_t layer = 0; layer < balance_loss.size(); ++layer) {
    const auto loads = load.subspan(layer * experts, experts);
    const int64_t layer_assignments = std::accumulate(loads.begin(), loads.end(), int64_t{0});
    const double mean = static_cast<double>(layer_assignments) / static_cast<double>(experts);
    for (const int32_t expert_load : loads) {
      active += expert_load > kActiveShareOfMean * mean ? 1 : 0;
      if (capacity_factor) dropped += std::max<int64_t>(0, expert_load - capacity);
    }
    assignments += layer_assignments;
    summary.balance_loss += balance_loss[layer];
    if (layer_assignments > 0) summary.load_max_over_mean += std::ranges::max(loads) / mean;
  }
  const auto layers = static_cast<double>(balance_loss.size());
  summary.balance_loss /= layers;
  summary.load_max_over_mean /= layers;
  summary.expert_activation = static_cast<double>(active) / (layers * static_cast<double>(experts));
  if (assignments > 0) summary.dropped_fraction = static_cast<double>(dropped) / static_cast<double>(assignments);
  return summary;
}

}  // namespace mhmoe::train
