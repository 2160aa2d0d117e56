#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace mhmoe::train {

double learning_rate_at(const LearningRateConfig& config, int64_t steps, int64_t step) {
  if (step < config.warmup_steps) {
    return config.peak * static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  }
  const int64_t decay_steps = std::max<int64_t>(1, steps - config.warmup_steps);
  const double progress =
      std::min(1.0, static_cast<double>(step - config.warmup_steps) / static_cast<double>(decay_steps));
  const double remaining =
      config.decay == Decay::kLinear ? 1 - progress : (1 + std::cos(std::numbers::pi * progress)) / 2;
  return config.final + (config.peak - config.final) * remaining;
}

}  // namespace mhmoe::train
