#include "plan/bench.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <map>
#include <sstream>

#include "core/clock.h"
#include "core/philox.h"
#include "core/rank.h"
#include "train/group_options.h"
#include "train/memory_need.h"
#include "train/trainer.h"

namespace mhmoe::plan {
namespace {

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

// The most memory that the process has had at a time, as the kernel counts it; 0 where that cannot be learnt.
int64_t process_peak_bytes() {
  constexpr int64_t kKiB = 1024;
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    std::istringstream words(line);
    std::string name;
    int64_t value = 0;
    if (words >> name >> value && name == "VmHWM:") return value * kKiB;
  }
  return 0;
}

// Of all layers and micro-batches; assignments beyond the capacity are no rows.
RowsPerExpert rows_per_expert(const train::RunConfig& config, std::span<const int32_t> loads) {
  if (loads.empty()) return {};
  const nn::MoeConfig& moe = config.model.moe;
  const int64_t tokens = config.train.micro_batch_sequences * config.data.sequence_length;
  const int64_t capacity = nn::expert_capacity(moe, moe.capacity_factor, tokens * moe.heads);
  std::vector<int64_t> rows(loads.begin(), loads.end());
  if (capacity > 0) {
    for (int64_t& count : rows) count = std::min(count, capacity);
  }
  std::ranges::sort(rows);
  return {.least = rows.front(), .median = rows[rows.size() / 2], .most = rows.back()};
}

std::unique_ptr<Context> context_for(const Backend& backend, const train::RunConfig& config, DType compute,
                                     const comm::Layout& layout = {}, const comm::GroupOptions& options = {}) {
  std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  train::reserve_memory(*ctx, train::measure_memory(config, backend.kind, &backend.kernels, compute, layout, options));
  return ctx;
}

WaitingSeconds waited(const comm::ParallelGroups& groups) {
  using Kind = Communicator::Kind;
  const auto of = [&](Kind kind) {
    double seconds = 0;
    for (const auto* group : {&groups.world, &groups.expert, &groups.replica}) {
      seconds += (*group)->traffic(kind).waiting_seconds;
    }
    return seconds;
  };
  return {.all_to_all = of(Kind::kAllToAll),
          .reduction = of(Kind::kAllReduce) + of(Kind::kReduceScatter),
          .gather = of(Kind::kAllGather)};
}

// The mean over ranks, a step.
WaitingSeconds mean_waiting(Job& job, const WaitingSeconds& before, const WaitingSeconds& after, int64_t steps) {
  constexpr double kNano = 1e9;
  const auto counted = [&](double WaitingSeconds::*kind) {
    return static_cast<int64_t>(kNano * (after.*kind - before.*kind) / static_cast<double>(steps));
  };
  std::array<int64_t, 3> sums = {counted(&WaitingSeconds::all_to_all), counted(&WaitingSeconds::reduction),
                                 counted(&WaitingSeconds::gather)};
  job.sum(sums);
  const auto mean = [&](int64_t sum) { return static_cast<double>(sum) / kNano / job.size(); };
  return {.all_to_all = mean(sums[0]), .reduction = mean(sums[1]), .gather = mean(sums[2])};
}

}  // namespace

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
  one.train.forbid_host_sync = false;  // ops are timed by waiting
  one.train.cuda_graphs = false;       // ops are looked at one by one, also where nothing can record them
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

StepTimes time_steps(const Backend& backend, Job& job, const train::RunConfig& config, DType compute,
                     const BenchOptions& options) {
  const int64_t experts = config.model.moe_layers() > 0 ? config.model.moe.experts : 0;
  const comm::Layout layout = comm::make_layout(job.size(), job.rank(), experts, config.parallel.expert_parallel_size);
  const comm::GroupOptions exchange = train::group_options(config, compute, layout, comm::nodes_of_ranks(job));
  const std::unique_ptr<Context> ctx = context_for(backend, config, compute, layout, exchange);
  const comm::ParallelGroups groups = comm::make_groups(backend, *ctx, job, layout, exchange);
  train::RunConfig trained = config;
  train::Trainer trainer(*ctx, trained, compute, groups);
  const train::HostBatch batch = synthetic_batch(config, trainer.local_sequences(), trainer.first_sequence());
  StepTimes out;
  out.device = ctx->name();
  out.kind = backend.kind;
  out.layout = layout;
  std::vector<double> seconds;
  WaitingSeconds before;
  for (int64_t i = 0; i < options.warmup + options.steps; ++i) {
    if (i == options.warmup) before = waited(groups);
    const auto start = Clock::now();
    out.moe = trainer.step(batch).moe;
    ctx->synchronize();
    if (i >= options.warmup) seconds.push_back(seconds_since(start));
  }
  out.waiting = mean_waiting(job, before, waited(groups), options.steps);
  out.best_seconds = *std::ranges::min_element(seconds);
  out.median_seconds = median(seconds);
  out.rows_per_expert = rows_per_expert(config, trainer.expert_loads());
  out.arena_bytes = ctx->state().reserved_bytes() + ctx->step().reserved_bytes();
  out.process_peak_bytes = process_peak_bytes();
  constexpr int64_t kMostObserved = 3;
  trained.train.forbid_host_sync = false;  // parts are timed by waiting
  out.parts = time_parts(*ctx, trainer, batch, std::min(options.steps, kMostObserved));
  return out;
}

}  // namespace mhmoe::plan
