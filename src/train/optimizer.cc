#include "train/optimizer.h"

#include <cmath>
#include <utility>
#include <vector>

#include "ops/elementwise.h"
#include "train/exact_norm.h"

namespace mhmoe::train {
namespace {

// A communicator keeps the last 64 transfers.
constexpr size_t kMostUnderWay = 32;
constexpr int64_t kLossScale = ops::kStepScalarCount;
constexpr int64_t kSumSquares = StepScalars::kInputs;
constexpr int64_t kLoss = kSumSquares + 1;

bool decays(nn::ParameterKind kind, WeightDecayOn on) {
  return on == WeightDecayOn::kAll || kind != nn::ParameterKind::kVector;
}

}  // namespace

StepScalars::StepScalars(const Tensor& all_words)
    : words(all_words),
      inputs(words.slice(0, kInputs)),
      update(words.slice(0, ops::kStepScalarCount)),
      loss_scale(words.slice(kLossScale, 1)),
      sum_squares(words.slice(kSumSquares, 1)),
      loss(words.slice(kLoss, 1)) {}

Optimizer::Optimizer(Context& ctx, nn::ParameterStore& parameters, const OptimizerConfig& config,
                     const Options& options, const comm::ParallelGroups& groups)
    : parameters_(parameters), config_(config), options_(options), groups_(groups) {
  const int64_t count = parameters.owned_count();
  moment1_ = ctx.state().allocate("first moments", DType::kF32, {count});
  moment2_ = ctx.state().allocate("second moments", DType::kF32, {count});
  norm_parts_ = ctx.state().allocate("gradient norm", DType::kF32, {groups.layout.world});
  ctx.fill_zero(moment1_);
  ctx.fill_zero(moment2_);
  if (!options.width_invariant) return;
  for (const nn::Bucket& bucket : parameters.buckets()) owned_gradients_.push_back(bucket.owned_gradient());
}

void Optimizer::update_bucket(Context& ctx, const StepScalars& scalars, const nn::Bucket& bucket) const {
  const double decay = decays(bucket.kind, config_.weight_decay_on) ? config_.weight_decay : 0;
  ops::adam_update(ctx, {.master = bucket.owned_master,
                         .moment1 = moment1_.slice(bucket.state_begin, bucket.owned_count),
                         .moment2 = moment2_.slice(bucket.state_begin, bucket.owned_count),
                         .grad = bucket.owned_gradient(),
                         .scalars = scalars.update,
                         .copy = bucket.owned_copy,
                         .beta1 = static_cast<float>(config_.beta1),
                         .beta2 = static_cast<float>(config_.beta2),
                         .eps = static_cast<float>(config_.eps),
                         .weight_decay = static_cast<float>(decay),
                         .decoupled = config_.kind == OptimizerKind::kAdamW});
}

std::array<float, ops::kStepScalarCount> Optimizer::inputs(double learning_rate, const StepLimits& limits) const {
  const auto t = static_cast<double>(updates_ + 1);
  std::array<float, ops::kStepScalarCount> host{};
  host[ops::kLearningRate] = static_cast<float>(learning_rate);
  host[ops::kBiasCorrection1] = static_cast<float>(1 - std::pow(config_.beta1, t));
  host[ops::kBiasCorrection2] = static_cast<float>(1 - std::pow(config_.beta2, t));
  host[ops::kLossLimit] = static_cast<float>(limits.loss);
  host[ops::kNormLimit] = static_cast<float>(limits.gradient_norm);
  return host;
}

// Shards do not overlap, so that their sums of squares add up to that of the whole gradient.
void Optimizer::sum_squares(Context& ctx, const StepScalars& scalars) {
  if (options_.width_invariant && !ctx.sizing()) {
    const float sum = exact_sum_squares(*groups_.job, owned_gradients_, parameters_.parameter_count());
    return ctx.upload(scalars.sum_squares, &sum);
  }
  Communicator& world = *groups_.world;
  const Tensor own = world.size() > 1 ? norm_parts_.slice(world.rank(), 1) : scalars.sum_squares;
  ctx.fill_zero(own);
  for (const nn::Bucket& bucket : parameters_.buckets()) {
    ops::reduce(ctx, {.out = own, .in = bucket.owned_gradient(), .squares = true});
  }
  if (world.size() == 1) return;
  world.wait(world.all_gather(norm_parts_, own, "gradient norm"));
  ctx.fill_zero(scalars.sum_squares);
  ops::reduce(ctx, {.out = scalars.sum_squares, .in = norm_parts_});
}

void Optimizer::gather_values() const {
  std::vector<std::pair<Communicator*, Transfer>> under_way;
  for (const nn::Bucket& bucket : parameters_.buckets()) {
    Communicator& ranks = bucket.placement == nn::Placement::kEverywhere ? *groups_.world : *groups_.replica;
    if (ranks.size() == 1) continue;
    under_way.emplace_back(&ranks, ranks.all_gather(bucket.values, bucket.owned_values(), "parameters"));
    if (under_way.size() < kMostUnderWay) continue;
    for (const auto& [group, transfer] : under_way) group->wait(transfer);
    under_way.clear();
  }
  for (const auto& [group, transfer] : under_way) group->wait(transfer);
}

void Optimizer::update(Context& ctx, const StepScalars& scalars) {
  sum_squares(ctx, scalars);
  ops::clip_scale(ctx, {.scalars = scalars.update,
                        .sum_squares = scalars.sum_squares,
                        .loss = scalars.loss,
                        .clip_norm = static_cast<float>(options_.clip_norm)});
  for (const nn::Bucket& bucket : parameters_.buckets()) update_bucket(ctx, scalars, bucket);
  gather_values();
}

Optimizer::Outcome Optimizer::finish(std::span<const float> words) {
  const bool refused = words[ops::kRefuse] != 0;
  if (!refused) ++updates_;
  return {.loss = words[kLoss], .gradient_norm = std::sqrt(words[kSumSquares]), .refused = refused};
}

}  // namespace mhmoe::train
