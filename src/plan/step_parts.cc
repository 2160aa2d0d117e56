#include "plan/step_parts.h"

#include <numeric>
#include <utility>

#include "core/clock.h"
#include "plan/step_work.h"

namespace mhmoe::plan {
namespace {

class PartTimer final : public WorkObserver {
 public:
  explicit PartTimer(Context& ctx) : ctx_(ctx) {}

  void begin(const ops::OpCall& /*call*/) override { times_.between_ops += lap(); }
  void begin_fill(const Tensor& /*dst*/) override { times_.between_ops += lap(); }
  void begin_copy(const Tensor& /*dst*/, const Tensor& /*src*/) override { times_.between_ops += lap(); }
  void end() override { times_.ops[ctx_.part()] += lap(); }

  void begin_step() {
    times_ = {};
    lap();
  }
  PartTimes end_step() {
    times_.between_ops += lap();
    return times_;
  }

 private:
  // Seconds since the last call.
  double lap() {
    ctx_.synchronize();
    const Clock::time_point now = Clock::now();
    return std::chrono::duration<double>(now - std::exchange(last_, now)).count();
  }

  Context& ctx_;
  Clock::time_point last_;
  PartTimes times_;
};

class PartFloors final : public WorkObserver {
 public:
  PartFloors(const Context& ctx, const Speeds& speeds) : ctx_(ctx), speeds_(speeds) {}

  void begin(const ops::OpCall& call) override { add(cost_of(call)); }
  void begin_fill(const Tensor& dst) override { add(cost_of_fill(dst)); }
  void begin_copy(const Tensor& dst, const Tensor& src) override { add(cost_of_copy(dst, src)); }
  void end() override {}

  const PartSeconds& seconds() const { return seconds_; }

 private:
  void add(const OpCost& cost) { seconds_[ctx_.part()] += floor_seconds(cost, speeds_); }

  const Context& ctx_;
  const Speeds& speeds_;
  PartSeconds seconds_;
};

}  // namespace

double PartSeconds::sum() const {
  return std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
}

PartTimes time_parts(Context& ctx, train::Trainer& trainer, const train::HostBatch& batch, int64_t steps) {
  PartTimer timer(ctx);
  ctx.set_work_observer(&timer);
  PartTimes best;
  for (int64_t i = 0; i < steps; ++i) {
    timer.begin_step();
    trainer.step(batch);
    const PartTimes times = timer.end_step();
    if (i == 0 || times.step() < best.step()) best = times;
  }
  ctx.set_work_observer(nullptr);
  return best;
}

PartSeconds floors_by_part(const train::RunConfig& config, DeviceKind device, DType compute, const Speeds& speeds) {
  SizingStep step(config, device, compute);
  PartFloors floors(step.context(), speeds);
  step.run(floors);
  return floors.seconds();
}

}  // namespace mhmoe::plan
