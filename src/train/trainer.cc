#include "train/trainer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <utility>

#include "device/step_part.h"
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

namespace {

std::string divisors_of(int64_t count, int64_t at_most) {
  std::string list;
  for (int64_t d = 1; d <= std::min(count, at_most); ++d) {
    if (count % d == 0) list += (list.empty() ? "" : ", ") + std::to_string(d);
  }
  return list;
}

nn::ModelConfig with_experts_of(nn::ModelConfig model, const comm::Layout& layout) {
  model.moe.local_experts = model.moe.experts / layout.expert_parallel_size;
  model.moe.local_experts_begin = layout.expert_rank() * model.moe.local_experts;
  return model;
}

void check_layout(const RunConfig& config, const Context& ctx, const comm::Layout& layout) {
  const bool graphs = config.train.cuda_graphs && !ctx.sizing();
  if (graphs && !ctx.can_record()) {
    fail(ExitCode::kConfig,
         "train.cuda_graphs is true, but {} cannot record work; set it to false, or use --device cuda", ctx.name());
  }
  const int64_t sequences = config.train.batch_tokens / config.data.sequence_length;
  const int64_t micro_batches = sequences / config.train.micro_batch_sequences;
  if (micro_batches % layout.world != 0) {
    fail(ExitCode::kConfig,
         "train.batch_tokens: {} micro-batches of {} sequences do not divide over {} ranks; with this batch there can "
         "be "
         "{} ranks; smaller micro-batches (train.micro_batch_sequences: 1) allow {}",
         micro_batches, config.train.micro_batch_sequences, layout.world, divisors_of(micro_batches, 4096),
         divisors_of(sequences, 4096));
  }
  const bool shared_out = layout.expert_parallel_size > 1;
  const bool host_waits = shared_out && (!config.model.moe.capacity_factor || config.parallel.verify_transfers);
  if (host_waits && (graphs || config.train.forbid_host_sync)) {
    fail(ExitCode::kConfig, "{}: {} makes the host wait in every layer; switch one of the two off",
         graphs ? "train.cuda_graphs" : "train.forbid_host_sync",
         config.parallel.verify_transfers ? "parallel.verify_transfers" : "dropless routing over several ranks");
  }
  if (!config.parallel.width_invariant) return;
  if (!std::has_single_bit(static_cast<uint64_t>(micro_batches)) ||
      !std::has_single_bit(static_cast<uint64_t>(layout.world))) {
    fail(ExitCode::kConfig,
         "parallel.width_invariant: {} micro-batches over {} ranks; both must be powers of two, since gradients are "
         "added up in a binary tree; change train.batch_tokens or train.micro_batch_sequences",
         micro_batches, layout.world);
  }
  if (ctx.kind() != DeviceKind::kCpu) {
    fail(ExitCode::kConfig, "parallel.width_invariant: {} is not the CPU, whose products alone are known to keep it",
         ctx.name());
  }
}

}  // namespace

Trainer::Trainer(Context& ctx, const RunConfig& config, DType compute)
    : Trainer(ctx, config, compute, std::make_unique<comm::ParallelGroups>(comm::make_single_groups(ctx))) {}

Trainer::Trainer(Context& ctx, const RunConfig& config, DType compute, std::unique_ptr<comm::ParallelGroups> own_groups)
    : Trainer(ctx, config, compute, *own_groups) {
  own_groups_ = std::move(own_groups);
}

Trainer::Trainer(Context& ctx, const RunConfig& config, DType compute, const comm::ParallelGroups& groups,
                 Weights weights)
    : ctx_(ctx),
      config_(config),
      groups_(groups),
      model_(with_experts_of(config.model, groups.layout)),
      task_(model_, config.train.recompute == Recompute::kBlock),
      spike_guard_(config.train.spike_guard) {
  check_layout(config, ctx, groups.layout);
  nn::ParameterStore& parameters = task_.parameters();
  const comm::Layout& layout = groups.layout;
  parameters.allocate(ctx, compute, true,
                      {.everywhere = {.shards = layout.world, .index = layout.rank},
                       .with_experts = {.shards = layout.replicas(), .index = layout.replica()}});
  if (weights == Weights::kInitial) parameters.initialize(ctx, config.seed);
  memory_.emplace(ctx, StepMemory::Shape{.micro_batches = local_micro_batches(),
                                         .sequences = config.train.micro_batch_sequences,
                                         .length = config.data.sequence_length,
                                         .moe_layers = task_.moe_layers(),
                                         .experts = config.model.moe.experts,
                                         .ranks = layout.world,
                                         .rank = layout.rank});
  ctx.plan_uploads(memory_->upload_bytes());
  const bool width_invariant = config.parallel.width_invariant;
  gradients_.emplace(ctx, parameters, groups, local_micro_batches(), width_invariant);
  optimizer_.emplace(
      ctx, parameters, config.train.optimizer,
      Optimizer::Options{.clip_norm = config.train.gradient_clip_norm, .width_invariant = width_invariant}, groups);
}

// The first step sets up what libraries need, and observers look at tensors while they are there.
void Trainer::run(Part& part, const std::function<void()>& work) {
  if (!config_.train.cuda_graphs || !ran_a_step_ || ctx_.observed() || ctx_.watched() || ctx_.sizing()) return work();
  const uint64_t generation = ctx_.step().generation();
  if (part.recorded == nullptr || part.generation != generation) {
    part.recorded = nullptr;  // first: two recordings would take twice the memory
    part.recorded = ctx_.record(work);
    part.generation = generation;
  }
  part.recorded->replay();
}

int64_t Trainer::counted_by_all(const HostBatch& batch) const {
  std::array<int64_t, 1> counted = {batch.counted()};
  groups_.job->sum(counted);
  return counted[0];
}

void Trainer::upload_scalars(int64_t counted, double learning_rate) {
  std::array<float, StepScalars::kInputs> inputs{};
  std::ranges::copy(optimizer_->inputs(learning_rate, spike_guard_.limits()), inputs.begin());
  inputs.back() = counted > 0 ? 1 / static_cast<float>(counted) : 0;
  ctx_.upload(memory_->scalars().inputs, inputs.data());
}

// Forward and backward of the micro-batch in memory_, whose numbers all lie on the device.
void Trainer::micro_batch() {
  const ArenaScope scope(ctx_.step());
  const DeviceBatch& batch = memory_->batch();
  const Tensor& scale = memory_->scalars().loss_scale;
  const Tensor losses = ctx_.step().allocate("losses", DType::kF32, {batch.tokens.count()});
  const auto balance_weight = static_cast<float>(config_.model.moe.balance_loss_weight);
  nn::Pass pass{.ctx = ctx_,
                .compute = task_.parameters().compute_dtype(),
                .batch = batch.tokens.dims[0],
                .sequence_length = batch.tokens.dims[1],
                .capacity_factor = config_.model.moe.capacity_factor,
                .statistics = memory_->statistics(),
                .gradients = &*gradients_,
                .balance_scale = balance_weight / static_cast<float>(micro_batches()),
                .experts = groups_.expert.get(),
                .overlap_chunks = config_.parallel.overlap_chunks,
                .verify_transfers = config_.parallel.verify_transfers};
  task_.forward_backward(pass, batch, losses, scale);
  ctx_.observe(losses, "losses");
  const StepPartScope part(ctx_, StepPart::kLoss);
  ctx_.fill_zero(memory_->loss());
  ops::reduce(ctx_, {.out = memory_->loss(), .in = losses, .scale = scale});
}

// Sums over ranks begin during its backward pass and are complete at its end.
void Trainer::last_micro_batch() {
  gradients_->begin_last();
  micro_batch();
  gradients_->end_micro_batch();
  gradients_->finish();
}

void Trainer::update() {
  memory_->gather_statistics(ctx_, *groups_.world);
  const StepPartScope part(ctx_, StepPart::kOptimizer);
  optimizer_->update(ctx_, memory_->scalars());
  gradients_->clear();
}

void Trainer::observe_parameters(const char* kind, Tensor nn::Parameter::*tensor) {
  if (!ctx_.observed()) return;
  task_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    if ((parameter.*tensor).empty()) return;
    ctx_.observe(nn::ParameterStore::part_of(parameter.*tensor, part), "{}.{}", kind, part.name);
  });
}

void Trainer::accumulate(const HostBatch& batch) {
  const int64_t last = local_micro_batches() - 1;
  for (int64_t i = 0; i <= last; ++i) {
    memory_->upload(ctx_, batch, i);
    if (i == last) {
      run(last_micro_batch_, [this] { last_micro_batch(); });
    } else {
      run(micro_batch_, [this] {
        micro_batch();
        gradients_->end_micro_batch();
      });
    }
    memory_->keep_statistics(ctx_, i);
  }
  observe_parameters("grad", &nn::Parameter::gradient);
}

StepResult Trainer::step(const HostBatch& batch) {
  MHMOE_CHECK(batch.sequences == local_sequences() && batch.length == config_.data.sequence_length,
              "a step takes {} sequences of {} tokens, got {} of {}", local_sequences(), config_.data.sequence_length,
              batch.sequences, batch.length);
  StepResult result;
  result.step = ++steps_done_;
  groups_.job->monitor().set_step(result.step);
  result.counted = counted_by_all(batch);
  result.learning_rate = learning_rate_at(config_.train.learning_rate, config_.train.steps, result.step);
  {
    // Observers read tensors, for which they wait.
    const NoHostSync queued_only(ctx_, config_.train.forbid_host_sync && !ctx_.observed());
    upload_scalars(result.counted, result.learning_rate);
    accumulate(batch);
    run(update_, [this] { update(); });
  }
  observe_parameters("updated", &nn::Parameter::master);
  read_result(result);
  ran_a_step_ = true;
  ctx_.step().check_empty();
  ctx_.step().merge_blocks();
  return result;
}

// The one place where a step waits for the device.
void Trainer::read_result(StepResult& result) {
  memory_->download(ctx_);
  const Optimizer::Outcome outcome = optimizer_->finish(memory_->host_scalars());
  result.loss = outcome.loss;
  result.gradient_norm = outcome.gradient_norm;
  const nn::MoeConfig& moe = config_.model.moe;
  const int64_t rows = config_.train.micro_batch_sequences * config_.data.sequence_length * moe.heads;
  result.moe = summarize(moe, moe.capacity_factor, rows, memory_->host_balance_loss(), memory_->host_load(),
                         groups_.layout.expert_parallel_size);
  result.waiting_seconds = waited_seconds();
  judge(result, outcome.refused);
}

// Of this rank's host for rows, in this step.
double Trainer::waited_seconds() {
  const double now = groups_.expert->traffic(Communicator::Kind::kAllToAll).waiting_seconds;
  return now - std::exchange(waited_before_, now);
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
  observe_parameters("weight", &nn::Parameter::value);
  upload_scalars(counted_by_all(batch), 0);
  accumulate(batch);
  ctx_.set_observer(nullptr);
  gradients_->clear();
  for (const std::string& found : groups_.job->gather(probe.first())) {
    if (!found.empty()) return found;
  }
  return {};
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
