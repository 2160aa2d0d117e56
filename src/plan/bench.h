// Measuring a device at training: each op by itself, and whole steps.
#pragma once

#include <vector>

#include "comm/groups.h"
#include "device/backend.h"
#include "plan/op_cost.h"
#include "plan/step_parts.h"
#include "train/batch.h"
#include "train/moe_summary.h"
#include "train/run_config.h"

namespace mhmoe::plan {

struct BenchOptions {
  int64_t warmup = 1;  // steps before the first that is timed
  int64_t steps = 5;   // timed
};

// Sequences of tokens drawn evenly from the vocabulary (seed: the configuration's), from number `first` on.
// model.vocab_size must be filled in.
train::HostBatch synthetic_batch(const train::RunConfig& config, int64_t sequences, int64_t first = 0);

// Steps on such tokens, with weights as they are initialised: routing is what the untrained router does.

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

// Of the last step; all zero for a dense model.
struct RowsPerExpert {
  int64_t least = 0, median = 0, most = 0;
};

// What this rank's host waited for others in a step, by kind of collective; where a device waits instead, nothing.
struct WaitingSeconds {
  double all_to_all = 0;  // routed rows
  double reduction = 0;   // of gradients, losses and norms
  double gather = 0;      // of updated weights
  double sum() const { return all_to_all + reduction + gather; }
};

struct StepTimes {
  double median_seconds = 0, best_seconds = 0;  // of a whole step
  train::MoeSummary moe;                        // of the last one
  RowsPerExpert rows_per_expert;
  PartTimes parts;  // of further steps, under an observer
  size_t arena_bytes = 0;
  int64_t process_peak_bytes = 0;
  std::string device;  // the context's name
  DeviceKind kind = DeviceKind::kCpu;
  comm::Layout layout;     // of rank 0
  WaitingSeconds waiting;  // the mean over ranks and steps
};

// All ranks of the job together; every one of them calls it. Times are this rank's, which the step's collectives make
// nearly equal on all.
StepTimes time_steps(const Backend& backend, Job& job, const train::RunConfig& config, DType compute,
                     const BenchOptions& options);

}  // namespace mhmoe::plan
