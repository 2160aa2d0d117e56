#include "plan/step_work.h"

#include <algorithm>
#include <map>

#include "train/flops.h"

namespace mhmoe::plan {
namespace {

class Tally final : public WorkObserver {
 public:
  void begin(const ops::OpCall& call) override { add(cost_of(call)); }
  void begin_fill(const Tensor& dst) override { add(cost_of_fill(dst)); }
  void begin_copy(const Tensor& dst, const Tensor& src) override { add(cost_of_copy(dst, src)); }
  void end() override {}

  std::vector<OpWork> take() { return std::move(work_); }

 private:
  void add(OpCost cost) {
    const auto [at, is_new] = index_.try_emplace(cost.op + " " + cost.shape, work_.size());
    if (is_new) work_.push_back({std::move(cost), 0});
    ++work_[at->second].calls;
  }

  std::vector<OpWork> work_;
  std::map<std::string, size_t> index_;
};

}  // namespace

SizingStep::SizingStep(const train::RunConfig& config, DeviceKind device, DType compute, const comm::Layout& layout)
    : config_(config),
      ctx_(make_sizing_context(device, nullptr)),
      groups_(comm::make_sizing_groups(*ctx_, layout)),
      trainer_(*ctx_, config, compute, groups_) {}

void SizingStep::run(WorkObserver& observer) {
  ctx_->set_work_observer(&observer);
  trainer_.step(train::HostBatch(trainer_.local_sequences(), config_.data.sequence_length));
  ctx_->set_work_observer(nullptr);
}

std::vector<OpWork> work_of_step(const train::RunConfig& config, DeviceKind device, DType compute,
                                 const comm::Layout& layout) {
  Tally tally;
  SizingStep(config, device, compute, layout).run(tally);
  return tally.take();
}

double floor_seconds(const OpCost& cost, const Speeds& device) {
  return std::max(cost.bytes / device.bytes_per_second, cost.flops / device.flops(cost.product));
}

StepFloor floor_of_step(const std::vector<OpWork>& work, const train::RunConfig& config, const Gpu& gpu) {
  StepFloor step;
  for (const OpWork& row : work) {
    const auto calls = static_cast<double>(row.calls);
    step.seconds += calls * floor_seconds(row.cost, gpu);
    step.bytes += calls * row.cost.bytes;
    step.flops += calls * row.cost.flops;
  }
  step.tokens = static_cast<double>(config.train.batch_tokens);
  step.model_flops = step.tokens * train::training_flops_per_token(config.model, config.data.sequence_length);
  return step;
}

}  // namespace mhmoe::plan
