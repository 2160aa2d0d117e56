#include "nn/router.h"

#include "nn/linear.h"
#include "ops/matmul.h"

namespace mhmoe::nn {

Router::Router(const MoeConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width)
    : config_(config),
      weight_(parameters.add(ParameterKind::kRouter, prefix + ".weight", {config.experts, width},
                             Init::linear_default(width))) {}

void Router::forward(Pass& pass, Routing& routing, const Tensor& balance_loss, const Tensor& z) const {
  const StepPartScope part(pass.ctx, StepPart::kRouter);
  const int64_t rows = z.rows();
  routing.probabilities = pass.allocate("router probabilities", DType::kF32, {rows, config_.experts});
  routing.expert_index = pass.allocate("routing", DType::kI32, {rows, config_.top_k});
  routing.gate_weight = pass.allocate("routing", DType::kF32, {rows, config_.top_k});
  routing.share = pass.allocate("routing", DType::kF32, {config_.experts});

  const ArenaScope scope = pass.scope();
  ops::matmul(
      pass.ctx,
      {.out = routing.probabilities, .a = converted(pass, z, DType::kF32), .b = weight_.value, .transpose_b = true});
  ops::router_forward(pass.ctx, {.probabilities = routing.probabilities,
                                 .expert_index = routing.expert_index,
                                 .gate_weight = routing.gate_weight,
                                 .share = routing.share,
                                 .balance_loss = balance_loss,
                                 .logits = routing.probabilities,
                                 .normalize = config_.router.normalize_top_k,
                                 .counts = config_.balance_loss_counts});
}

void Router::backward(Pass& pass, const Routing& routing, const Tensor& grad_z, const Tensor& grad_gate,
                      const Tensor& z, const Tensor& addend) const {
  const StepPartScope part(pass.ctx, StepPart::kRouter);
  const ArenaScope scope = pass.scope();
  const Tensor grad_logits = routing.probabilities;
  ops::router_backward(pass.ctx, {.grad_logits = grad_logits,
                                  .grad_gate = grad_gate,
                                  .probabilities = routing.probabilities,
                                  .expert_index = routing.expert_index,
                                  .share = routing.share,
                                  .normalize = config_.router.normalize_top_k,
                                  .balance_scale = pass.balance_scale});
  const Tensor grad_weight = pass.gradients->gradient_of(weight_);
  ops::matmul(pass.ctx, {.out = grad_weight,
                         .a = grad_logits,
                         .b = converted(pass, z, DType::kF32),
                         .transpose_a = true,
                         .addend = grad_weight});
  ops::matmul(pass.ctx, {.out = grad_z, .a = grad_logits, .b = weight_.value, .addend = addend});
}

}  // namespace mhmoe::nn
