#include "train/step_observation.h"

#include <algorithm>

#include "core/log.h"

namespace mhmoe::train {

void StepObservation::begin(int64_t step) {
  if (!plan_.dump_folder.empty() && step == plan_.dump_step) dump_.emplace(ctx_);
  const bool due = step == 1 || step == plan_.last_step || step % std::max<int64_t>(1, plan_.routing_every) == 0;
  if (plan_.routing_every > 0 && due) routing_.emplace(ctx_, moe_);
  if (!dump_ && !routing_) return;
  both_.emplace(dump_ ? &*dump_ : nullptr, routing_ ? &*routing_ : nullptr);
  ctx_.set_observer(&*both_);
}

std::optional<RoutingRecord> StepObservation::end(int64_t step) {
  ctx_.set_observer(nullptr);
  if (dump_) {
    dump_->write(plan_.dump_folder, step);
    log::info("step {}: its tensors are in {}", step, plan_.dump_folder);
  }
  std::optional<RoutingRecord> record;
  if (routing_) record = routing_->record(job_);
  dump_.reset();
  routing_.reset();
  return record;
}

}  // namespace mhmoe::train
