#include "plan/bench.h"

#include <algorithm>
#include <chrono>
#include <map>

#include "core/philox.h"
#include "core/rank.h"
#include "train/memory_need.h"
#include "train/trainer.h"

namespace mhmoe::plan {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

class OpTimer final : public WorkObserver {
 public:
  explicit OpTimer(Context& ctx) : ctx_(ctx) {}

  void begin(const ops::OpCall& call) override { start(cost_of(call)); }
  void begin_fill(const Tensor& dst) override { start(cost_of_fill(dst)); }
  void begin_copy(const Tensor& dst, const Tensor& src) override { start(cost_of_copy(dst, src)); }
  void end() override {
    ctx_.synchronize();
    current_->push_back(seconds_since(start_));
  }

  void forget() { seconds_.clear(); }

  std::vector<OpTime> medians() {
    std::vector<OpTime> out;
    for (auto& [key, seconds] : seconds_) {
      out.push_back({key.first, key.second, median(seconds), static_cast<int64_t>(seconds.size())});
    }
    return out;
  }

 private:
  void start(const OpCost& cost) {
    current_ = &seconds_[{cost.op, cost.shape}];
    ctx_.synchronize();
    start_ = Clock::now();
  }

  Context& ctx_;
  std::map<std::pair<std::string, std::string>, std::vector<double>> seconds_;
  std::vector<double>* current_ = nullptr;
  Clock::time_point start_;
};

std::unique_ptr<Context> context_for(const Backend& backend, const train::RunConfig& config, DType compute) {
  std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  train::reserve_memory(*ctx, train::measure_memory(config, backend.kind, &backend.kernels, compute));
  return ctx;
}

}  // namespace

double median(std::vector<double>& values) {
  const auto middle = values.begin() + static_cast<int64_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

train::HostBatch synthetic_batch(const train::RunConfig& config, int64_t sequences, int64_t first) {
  train::HostBatch batch(sequences, config.data.sequence_length);
  const Philox philox(config.seed, "bench tokens");
  const auto vocab = static_cast<double>(config.model.vocab_size);
  const int64_t begin = first * config.data.sequence_length;
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    batch.tokens[i] = static_cast<int32_t>(philox.uniform(begin + static_cast<int64_t>(i)) * vocab);
  }
  for (size_t i = 0; i + 1 < batch.tokens.size(); ++i) batch.targets[i] = batch.tokens[i + 1];
  batch.targets.back() = batch.tokens.front();
  return batch;
}

std::vector<OpTime> time_ops(const Backend& backend, const train::RunConfig& config, DType compute,
                             const BenchOptions& options) {
  train::RunConfig one = config;  // a step of one micro-batch
  one.train.batch_tokens = config.train.micro_batch_sequences * config.data.sequence_length;
  // Ops are timed by waiting around each, so none may come from a graph and no wait is a mistake.
  one.train.cuda_graphs = one.train.forbid_host_sync = false;
  const std::unique_ptr<Context> ctx = context_for(backend, one, compute);
  train::Trainer trainer(*ctx, one, compute);
  const train::HostBatch batch = synthetic_batch(one, trainer.batch_sequences());
  OpTimer timer(*ctx);
  ctx->set_work_observer(&timer);
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    if (i == options.warmup) timer.forget();
    trainer.step(batch);
  }
  ctx->set_work_observer(nullptr);
  return timer.medians();
}

double idle_seconds(const Backend& backend) {
  constexpr int kWaits = 101;
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  std::vector<double> seconds;
  for (int i = 0; i < kWaits; ++i) {
    const auto start = Clock::now();
    ctx->synchronize();
    seconds.push_back(seconds_since(start));
  }
  return median(seconds);
}

StepTimes time_steps(const Backend& backend, const train::RunConfig& config, DType compute,
                     const BenchOptions& options) {
  const std::unique_ptr<Context> ctx = context_for(backend, config, compute);
  train::Trainer trainer(*ctx, config, compute);
  const train::HostBatch batch = synthetic_batch(config, trainer.batch_sequences());
  StepTimes out;
  out.device = ctx->name();
  std::vector<double> seconds;
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    const auto start = Clock::now();
    out.moe = trainer.step(batch).moe;
    ctx->synchronize();
    if (i >= options.warmup) seconds.push_back(seconds_since(start));
  }
  out.best_seconds = *std::ranges::min_element(seconds);
  out.median_seconds = median(seconds);
  out.arena_bytes = ctx->state().reserved_bytes() + ctx->step().reserved_bytes();
  return out;
}

}  // namespace mhmoe::plan
