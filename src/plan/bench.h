// Measuring a device at training: each op by itself, and whole steps.
#pragma once

#include <vector>

#include "device/backend.h"
#include "plan/op_cost.h"
#include "train/batch.h"
#include "train/moe_summary.h"
#include "train/run_config.h"

namespace mhmoe::plan {

struct BenchOptions {
  int64_t warmup = 1;  // steps before the first that is timed
  int64_t steps = 5;   // timed
};

// Reorders them; at least one.
double median(std::vector<double>& values);
// Tokens drawn evenly from the vocabulary, seeded by the configuration: sequences from number `first` on.
train::HostBatch synthetic_batch(const train::RunConfig& config, int64_t sequences, int64_t first = 0);

// Steps on tokens drawn evenly from the vocabulary (seed: the configuration's), with weights as they are initialised:
// routing is what the untrained router does. model.vocab_size must be filled in.

struct OpTime {
  std::string op, shape;  // as in OpCost
  double seconds = 0;     // of one call, the median
  int64_t calls = 0;      // timed
};

// Every op of one micro-batch and one update, on the tensors that it gets there. The device is waited for before and
// after every call, so what launching and waiting cost is in every time.
std::vector<OpTime> time_ops(const Backend& backend, const train::RunConfig& config, DType compute,
                             const BenchOptions& options);
// Of waiting for a device that has nothing to do: what no op can be faster than in time_ops.
double idle_seconds(const Backend& backend);

struct StepTimes {
  double median_seconds = 0, best_seconds = 0;  // of a whole step
  train::MoeSummary moe;                        // of the last one
  size_t arena_bytes = 0;
  std::string device;  // the context's name
};

StepTimes time_steps(const Backend& backend, const train::RunConfig& config, DType compute,
                     const BenchOptions& options);

}  // namespace mhmoe::plan
