// A training step by its parts (device/step_part.h): the time of each, and the least time that the device could take.
#pragma once

#include <array>

#include "device/backend.h"
#include "device/step_part.h"
#include "plan/speeds.h"
#include "train/trainer.h"

namespace mhmoe::plan {

// One number a part.
class PartSeconds {
 public:
  double& operator[](StepPart part) { return seconds_[static_cast<size_t>(part)]; }
  double operator[](StepPart part) const { return seconds_[static_cast<size_t>(part)]; }
  double sum() const;

 private:
  std::array<double, kStepParts.size()> seconds_{};
};

struct PartTimes {
  PartSeconds ops;         // in ops, fills and copies
  double between_ops = 0;  // in the host's work between them: uploads, results, and whatever else is no op

  double step() const { return ops.sum() + between_ops; }
};

// The fastest of `steps` steps under an observer that waits for the device around each op; so every moment of the step
// counts once.
PartTimes time_parts(Context& ctx, train::Trainer& trainer, const train::HostBatch& batch, int64_t steps);

// The floors of a step's ops, one after the other. A floor by bandwidth supposes that tensors come from memory: where
// they still lie in a cache, an op can be faster.
PartSeconds floors_by_part(const train::RunConfig& config, DeviceKind device, DType compute, const Speeds& speeds);

}  // namespace mhmoe::plan
