// What a person sees while a run goes on.
#pragma once

#include <string>

#include "train/metrics.h"

namespace mhmoe::train {

// "12.4k", "870", "1.24M"
std::string short_count(double value);
// "1:12:41", "4:05"
std::string duration(double seconds);

// One aligned line of a logged step; the balance and load columns only with MoE layers. eta_seconds: to the end of the
// run, when known.
std::string train_line(const Record& record, int64_t steps, bool has_moe, std::optional<double> eta_seconds);
std::string validation_line(int64_t step, int64_t steps, const ValidationScore& score);

// A line on standard error that is drawn over at every step; draws nothing unless that is a terminal.
class ProgressBar {
 public:
  ProgressBar();
  void draw(int64_t step, int64_t steps, std::optional<double> eta_seconds);
  // Before anything else is printed.
  void clear();

 private:
  bool terminal_;
  bool drawn_ = false;
};

}  // namespace mhmoe::train
