#include "train/moe_summary.h"

#include <algorithm>
#include <numeric>

namespace mhmoe::train {
namespace {

constexpr double kActiveShareOfMean = 0.1;

// Assignments of the rank that gets most.
double busiest_rank(std::span<const int32_t> loads, int64_t ranks) {
  const size_t each = loads.size() / static_cast<size_t>(ranks);
  int64_t most = 0;
  for (size_t first = 0; first < loads.size(); first += each) {
    const auto own = loads.subspan(first, each);
    most = std::max(most, std::accumulate(own.begin(), own.end(), int64_t{0}));
  }
  return static_cast<double>(most);
}

}  // namespace

MoeSummary summarize(const nn::MoeConfig& moe, std::optional<double> capacity_factor, int64_t rows,
                     std::span<const float> balance_loss, std::span<const int32_t> load, int64_t expert_ranks) {
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
    if (layer_assignments > 0) {
      summary.load_max_over_mean += std::ranges::max(loads) / mean;
      summary.rank_load_max_over_mean += busiest_rank(loads, expert_ranks) / (mean * static_cast<double>(experts));
    }
  }
  const auto layers = static_cast<double>(balance_loss.size());
  summary.balance_loss /= layers;
  summary.load_max_over_mean /= layers;
  summary.rank_load_max_over_mean *= expert_ranks > 1 ? static_cast<double>(expert_ranks) / layers : 0;
  summary.expert_activation = static_cast<double>(active) / (layers * static_cast<double>(experts));
  if (assignments > 0) summary.dropped_fraction = static_cast<double>(dropped) / static_cast<double>(assignments);
  return summary;
}

}  // namespace mhmoe::train
