// The numbers of a run, averaged between log lines.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "train/evaluation.h"
#include "train/trainer.h"

namespace mhmoe::train {

// What a logged step says. Loss, balance and routing are means over the steps since the last log line (refused steps
// left out); norm, learning rate and the load of ranks are the step's own.
struct TrainRecord {
  double loss = 0;
  double gradient_norm = 0;
  double learning_rate = 0;
  MoeSummary moe;
  std::optional<double> tokens_per_second;  // absent at the first step, which is left out of averages
  std::optional<double> waiting_share;      // of rank 0's time, waiting for rows of others
  std::optional<double> mfu;  // model FLOPs a second over the measured peak; absent above 1 or without one

  double perplexity() const;
};

struct Record {
  int64_t step = 0;
  int64_t tokens = 0;         // trained on so far
  double flops = 0;           // model FLOPs so far
  double seconds = 0;         // of training so far, validation left out
  int64_t refused_steps = 0;  // so far
  uint64_t run_hash = 0;      // after this step
  std::optional<TrainRecord> train;
  std::vector<ValidationScore> validation;
};

// Every measured quantity of the record under its public name, as metrics.jsonl and TensorBoard show it.
std::vector<std::pair<std::string, double>> scalars(const Record& record, bool has_moe);

// Sums over the steps since the last log line.
struct WindowSums {
  double last_loss = 0, last_gradient_norm = 0, last_learning_rate = 0;
  MoeSummary last_moe;
  int64_t averaged = 0;  // steps in the sums below
  double loss = 0;
  MoeSummary moe;
  int64_t timed_tokens = 0;
  double timed_seconds = 0;
  double waiting_seconds = 0;  // of these
};

// Collects steps between two log lines.
class StepWindow {
 public:
  // measure_peak: FLOPs a second, asked for once, when the first speed is known: a run does not wait for it to begin.
  // If it throws, that is a warning.
  StepWindow(double flops_per_token, std::function<double()> measure_peak)
      : flops_per_token_(flops_per_token), measure_peak_(std::move(measure_peak)) {}

  // timed: false for a process's first step, which is slower than the rest.
  void add(const StepResult& result, int64_t tokens, double seconds, bool timed);
  // The record of the steps added since the last call; at least one.
  TrainRecord take();

  const WindowSums& sums() const { return sums_; }
  void restore(const WindowSums& sums) { sums_ = sums; }

 private:
  double flops_per_token_;
  std::function<double()> measure_peak_;  // empty once asked
  std::optional<double> peak_;
  WindowSums sums_;
};

}  // namespace mhmoe::train
