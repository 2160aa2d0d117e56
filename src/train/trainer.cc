#include "train/trainer.h"

#include <cmath>

#include "ops/elementwise.h"
#include "train/non_finite_probe.h"
#include "train/schedule.h"

namespace mhmoe::train {

DType compute_dtype(Precision precision, bool device_prefers_bf16) {
  switch (precision) {
    case Precision::kFp32:
      return DType::kF32;
    case Precision::kBf16:
      return DType::kBF16;
    case Precision::kAuto:
      return device_prefers_bf16 ? DType::kBF16 : DType::kF32;
  }
  return DType::kF32;
}

DeviceBatch upload_batch(Context& ctx, const HostBatch& batch, int64_t first, int64_t count) {
  DeviceBatch out{.tokens = ctx.step().allocate("tokens", DType::kI32, {count, batch.length}),
                  .targets = ctx.step().allocate("targets", DType::kI32, {count, batch.length})};
  ctx.upload(out.tokens, batch.tokens.data() + first * batch.length);
  ctx.upload(out.targets, batch.targets.data() + first * batch.length);
  return out;
}

Trainer::Trainer(Context& ctx, const RunConfig& config, DType compute)
    : ctx_(ctx),
      config_(config),
      task_(config.model, config.train.recompute == Recompute::kBlock),
      spike_guard_(config.train.spike_guard) {
  nn::ParameterStore& parameters = task_.parameters();
  parameters.allocate(ctx, compute);
  parameters.initialize(ctx, config.seed);
  scalars_.emplace(ctx);
  optimizer_.emplace(ctx, parameters, config.train.optimizer, config.train.gradient_clip_norm);
}

Trainer::Statistics Trainer::allocate_statistics() {
  const int64_t layers = task_.moe_layers();
  const int64_t experts = config_.model.moe.experts;
  return {.balance_loss = ctx_.step().allocate("balance losses", DType::kF32, {micro_batches(), layers}),
          .load = ctx_.step().allocate("expert load", DType::kI32, {micro_batches(), layers, experts})};
}

void Trainer::micro_batch(const HostBatch& batch, int64_t index, const Statistics& statistics) {
  ArenaScope scope(ctx_.step());
  const int64_t sequences = config_.train.micro_batch_sequences;
  const DeviceBatch on_device = upload_batch(ctx_, batch, index * sequences, sequences);
  const Tensor losses = ctx_.step().allocate("losses", DType::kF32, {sequences * batch.length});
  const auto balance_weight = static_cast<float>(config_.model.moe.balance_loss_weight);
  nn::Pass pass{
      .ctx = ctx_,
      .compute = task_.parameters().compute_dtype(),
      .batch = sequences,
      .sequence_length = batch.length,
      .capacity_factor = config_.model.moe.capacity_factor,
      .statistics = {.balance_loss = statistics.balance_loss.select(index), .load = statistics.load.select(index)},
      .gradients = &sink_,
      .balance_scale = balance_weight / static_cast<float>(micro_batches())};
  task_.forward_backward(pass, on_device, losses, scalars_->loss_scale);
  ctx_.observe(losses, "losses");
  ops::reduce(ctx_, {.out = scalars_->loss, .in = losses, .scale = scalars_->loss_scale});
}

MoeSummary Trainer::summary_of(const Statistics& statistics) {
  std::vector<float> balance_loss(static_cast<size_t>(statistics.balance_loss.count()));
  std::vector<int32_t> load(static_cast<size_t>(statistics.load.count()));
  ctx_.download(balance_loss.data(), statistics.balance_loss);
  ctx_.download(load.data(), statistics.load);
  const nn::MoeConfig& moe = config_.model.moe;
  const int64_t rows = config_.train.micro_batch_sequences * config_.data.sequence_length * moe.heads;
  return summarize(moe, moe.capacity_factor, rows, balance_loss, load);
}

void Trainer::observe_parameters(const char* kind, Tensor nn::Parameter::*tensor) {
  if (!ctx_.observed()) return;
  task_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    ctx_.observe(nn::ParameterStore::part_of(parameter.*tensor, part), "{}.{}", kind, part.name);
  });
}

void Trainer::accumulate(const HostBatch& batch, const Statistics& statistics) {
  const int64_t counted = batch.counted();
  const float scale = counted > 0 ? 1 / static_cast<float>(counted) : 0;
  ctx_.upload(scalars_->loss_scale, &scale);
  ctx_.fill_zero(scalars_->loss);
  for (int64_t i = 0; i < micro_batches(); ++i) micro_batch(batch, i, statistics);
  observe_parameters("grad", &nn::Parameter::gradient);
}

StepResult Trainer::step(const HostBatch& batch) {
  MHMOE_CHECK(batch.sequences == batch_sequences() && batch.length == config_.data.sequence_length,
              "a step takes {} sequences of {} tokens, got {} of {}", batch_sequences(), config_.data.sequence_length,
              batch.sequences, batch.length);
  StepResult result;
  result.step = ++steps_done_;
  result.counted = batch.counted();
  result.learning_rate = learning_rate_at(config_.train.learning_rate, config_.train.steps, result.step);
  {
    ArenaScope scope(ctx_.step());
    const Statistics statistics = allocate_statistics();
    accumulate(batch, statistics);
    const Optimizer::Outcome outcome = optimizer_->step(ctx_, *scalars_, result.learning_rate, spike_guard_.limits());
    observe_parameters("updated", &nn::Parameter::master);
    result.loss = outcome.loss;
    result.gradient_norm = outcome.gradient_norm;
    result.moe = summary_of(statistics);
    judge(result, outcome.refused);
  }
  ctx_.step().check_empty();
  ctx_.step().merge_blocks();
  return result;
}

void Trainer::judge(StepResult& result, bool refused) {
  if (!refused) {
    refused_in_a_row_ = 0;
    spike_guard_.add(result.loss, result.gradient_norm);
    return;
  }
  ++refused_in_a_row_;
  const bool finite = std::isfinite(result.loss) && std::isfinite(result.gradient_norm);
  result.refusal = finite ? Refusal::kSpike : Refusal::kNotFinite;
}

std::string Trainer::first_not_finite(const HostBatch& batch) {
  NonFiniteProbe probe(ctx_);
  ctx_.set_observer(&probe);
  observe_parameters("weight", &nn::Parameter::master);
  {
    ArenaScope scope(ctx_.step());
    accumulate(batch, allocate_statistics());
  }
  ctx_.set_observer(nullptr);
  ctx_.fill_zero(task_.parameters().gradient());
  return probe.first();
}

TrainerState Trainer::state() const {
  return {.steps_done = steps_done_,
          .updates = optimizer_->updates(),
          .refused_in_a_row = refused_in_a_row_,
          .spike_guard = spike_guard_.state()};
}

void Trainer::restore(const TrainerState& state) {
  steps_done_ = state.steps_done;
  refused_in_a_row_ = state.refused_in_a_row;
  optimizer_->set_updates(state.updates);
  spike_guard_.restore(state.spike_guard);
}

}  // namespace mhmoe::train
