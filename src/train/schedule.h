// The learning rate as a function of the step.
#pragma once

#include <cstdint>

#include "train/run_config.h"

namespace mhmoe::train {

// The rate of update `step`, counted from 1: step / warmup_steps of the peak during warm-up (so 0 lies before the first
// update), then down from the peak to `final` at update `steps`, on a line or on half a cosine.
double learning_rate_at(const LearningRateConfig& config, int64_t steps, int64_t step);

}  // namespace mhmoe::train
