// Tells ordinary steps from loss spikes by the steps before them.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/json.h"
#include "train/run_config.h"

namespace mhmoe::train {

// A step is refused above either.
struct StepLimits {
  double loss = std::numeric_limits<double>::infinity();
  double gradient_norm = std::numeric_limits<double>::infinity();
};

// Limits are median + threshold * deviation of the last accepted steps, where the deviation is the median distance from
// the median, times 1.4826 (a normal distribution's standard deviation), and at least a hundredth of the median. Only
// accepted, hence finite, values are taken in, so that neither a NaN nor a spike changes what counts as ordinary.
class SpikeGuard {
 public:
  static constexpr size_t kFewestSteps = 16;  // no limits before
  explicit SpikeGuard(const SpikeGuardConfig& config);

  // Of the next step.
  const StepLimits& limits() const { return limits_; }
  // Of an accepted step.
  void add(double loss, double gradient_norm);

  json::Value state() const;
  // Throws Error(kBadData) for what state() did not write.
  void restore(const json::Value& state);

 private:
  double limit(const std::vector<double>& window);
  void set_limits();

  SpikeGuardConfig config_;
  std::vector<double> losses_, norms_;  // the oldest first
  std::vector<double> values_;          // what a median puts in order
  StepLimits limits_;
};

}  // namespace mhmoe::train
