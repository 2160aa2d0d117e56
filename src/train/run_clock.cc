#include "train/run_clock.h"

namespace mhmoe::train {

void RunClock::add_step(double seconds) {
  training_ += seconds;
  if (steps_seen_++ > 0) timed_ += seconds;
}

void RunClock::add_validation(double seconds) {
  validation_ += seconds;
  ++validations_;
}

std::optional<double> RunClock::seconds_a_step() const {
  if (steps_seen_ < 2) return std::nullopt;
  return timed_ / static_cast<double>(steps_seen_ - 1);
}

std::optional<double> RunClock::eta_seconds(int64_t steps_done) const {
  const std::optional<double> a_step = seconds_a_step();
  if (!a_step) return std::nullopt;
  double seconds = *a_step * static_cast<double>(steps_ - steps_done);
  if (validations_ > 0) {
    const int64_t all = (steps_ + validation_every_ - 1) / validation_every_;
    const int64_t done = steps_done == steps_ ? all : steps_done / validation_every_;
    seconds += validation_ / static_cast<double>(validations_) * static_cast<double>(all - done);
  }
  return seconds;
}

}  // namespace mhmoe::train
