#include "train/optimizer.h"

#include <cmath>

#include "ops/elementwise.h"

namespace mhmoe::train {
namespace {

constexpr int64_t kLossScale = ops::kStepScalarCount;
constexpr int64_t kSumSquares = StepScalars::kInputs;
constexpr int64_t kLoss = kSumSquares + 1;

bool decays(const nn::Parameter& parameter, WeightDecayOn on) {
  return on == WeightDecayOn::kAll || parameter.kind != nn::ParameterKind::kVector;
}

}  // namespace

StepScalars::StepScalars(const Tensor& all_words)
    : words(all_words),
      inputs(words.slice(0, kInputs)),
      update(words.slice(0, ops::kStepScalarCount)),
      loss_scale(words.slice(kLossScale, 1)),
      sum_squares(words.slice(kSumSquares, 1)),
      loss(words.slice(kLoss, 1)) {}

Optimizer::Optimizer(Context& ctx, nn::ParameterStore& parameters, const OptimizerConfig& config, double clip_norm)
    : parameters_(parameters), config_(config), clip_norm_(clip_norm) {
  const int64_t count = parameters.master().count();
  moment1_ = ctx.state().allocate("first moments", DType::kF32, {count});
  moment2_ = ctx.state().allocate("second moments", DType::kF32, {count});
  ctx.fill_zero(moment1_);
  ctx.fill_zero(moment2_);
  make_segments();
}

// Segments meet where the next one's first parameter begins: padding between parameters is zero and stays so.
void Optimizer::make_segments() {
  for (const nn::Parameter& parameter : parameters_.all()) {
    const double decay = decays(parameter, config_.weight_decay_on) ? config_.weight_decay : 0;
    if (!segments_.empty() && segments_.back().weight_decay == decay) continue;
    if (!segments_.empty()) segments_.back().end = parameter.offset;
    segments_.push_back({parameter.offset, parameters_.master().count(), decay});
  }
}

void Optimizer::update_segment(Context& ctx, const StepScalars& scalars, const Segment& segment) const {
  const int64_t count = segment.end - segment.begin;
  const Tensor& copy = parameters_.copy();
  ops::adam_update(ctx, {.master = parameters_.master().slice(segment.begin, count),
                         .moment1 = moment1_.slice(segment.begin, count),
                         .moment2 = moment2_.slice(segment.begin, count),
                         .grad = parameters_.gradient().slice(segment.begin, count),
                         .scalars = scalars.update,
                         .copy = copy.empty() ? Tensor() : copy.slice(segment.begin, count),
                         .beta1 = static_cast<float>(config_.beta1),
                         .beta2 = static_cast<float>(config_.beta2),
                         .eps = static_cast<float>(config_.eps),
                         .weight_decay = static_cast<float>(segment.weight_decay),
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

void Optimizer::update(Context& ctx, const StepScalars& scalars) {
  ctx.fill_zero(scalars.sum_squares);
  ops::reduce(ctx, {.out = scalars.sum_squares, .in = parameters_.gradient(), .squares = true});
  ops::clip_scale(ctx, {.scalars = scalars.update,
                        .sum_squares = scalars.sum_squares,
                        .loss = scalars.loss,
                        .clip_norm = static_cast<float>(clip_norm_)});
  for (const Segment& segment : segments_) update_segment(ctx, scalars, segment);
  ctx.fill_zero(parameters_.gradient());
}

Optimizer::Outcome Optimizer::finish(std::span<const float> words) {
  const bool refused = words[ops::kRefuse] != 0;
  if (!refused) ++updates_;
  return {.loss = words[kLoss], .gradient_norm = std::sqrt(words[kSumSquares]), .refused = refused};
}

}  // namespace mhmoe::train
