// What one training step hands to a device, op by op, and the least time a GPU can take for it.
#pragma once

#include <memory>
#include <vector>

#include "comm/groups.h"
#include "plan/gpu.h"
#include "plan/op_cost.h"
#include "train/trainer.h"

namespace mhmoe::plan {

// A training step in a sizing pass: its ops' shapes are checked and nothing is computed.
class SizingStep {
 public:
  // config, with model.vocab_size filled in, must outlive the step.
  SizingStep(const train::RunConfig& config, DeviceKind device, DType compute, const comm::Layout& layout = {});

  Context& context() { return *ctx_; }
  void run(WorkObserver& observer);

 private:
  const train::RunConfig& config_;
  std::unique_ptr<Context> ctx_;
  comm::ParallelGroups groups_;
  train::Trainer trainer_;
};

// Calls of one op with one shape.
struct OpWork {
  OpCost cost;  // of one call
  int64_t calls = 0;
};

// One training step of `config` (with model.vocab_size filled in), in the order in which ops are first called. It is
// what the layers really ask for: the step is run in a sizing pass, under an observer. layout: of one of its ranks.
std::vector<OpWork> work_of_step(const train::RunConfig& config, DeviceKind device, DType compute,
                                 const comm::Layout& layout = {});

// max(bytes / bandwidth, FLOPs / peak), in seconds. Neither launches nor waiting are in it.
double floor_seconds(const OpCost& cost, const Speeds& device);

struct StepFloor {
  double seconds = 0;  // the floors of all calls, one after the other
  double bytes = 0, flops = 0;
  double tokens = 0;
  double model_flops = 0;  // as train/flops.h counts them

  double tokens_per_second() const { return tokens / seconds; }
  double model_flops_per_second() const { return model_flops / seconds; }
};

StepFloor floor_of_step(const std::vector<OpWork>& work, const train::RunConfig& config, const Gpu& gpu);

}  // namespace mhmoe::plan
