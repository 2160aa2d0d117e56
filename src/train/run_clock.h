// What a run took so far, and when it will be done.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace mhmoe::train {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point start_ = Clock::now();
};

// Averages leave out the first step of this process, which is slower than the rest.
class RunClock {
 public:
  RunClock(int64_t steps, int64_t validation_every) : steps_(steps), validation_every_(validation_every) {}

  // Going on from a run that had trained so long.
  void restore(double training_seconds) { training_ = training_seconds; }
  void add_step(double seconds);
  void add_validation(double seconds);

  bool in_first_step() const { return steps_seen_ <= 1; }  // or just after it
  double training_seconds() const { return training_; }    // of the whole run, validation left out
  std::optional<double> seconds_a_step() const;
  std::optional<double> eta_seconds(int64_t steps_done) const;

 private:
  int64_t steps_, validation_every_;
  double training_ = 0;
  int64_t steps_seen_ = 0;
  double timed_ = 0;
  double validation_ = 0;
  int64_t validations_ = 0;
};

}  // namespace mhmoe::train
