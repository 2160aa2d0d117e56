#include "nn/mh_moe.h"

#include <cmath>
#include <functional>

#include "ops/elementwise.h"

namespace mhmoe::nn {
namespace {

// The released code's initialisation: xavier_uniform with gain 1/sqrt(2) and PyTorch's default bias for the head
// layer, gain 1 and a zero bias for the merge layer.
std::optional<Linear> make_head(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix) {
  if (!config.moe.has_head_layer()) return std::nullopt;
  const int64_t d = config.hidden_size;
  return Linear(parameters, prefix + ".head", d, d, config.moe.projection_bias,
                Init::xavier_uniform(d, d, 1 / std::sqrt(2.0)), Init::linear_default(d));
}

std::optional<Linear> make_merge(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix) {
  if (!config.moe.has_merge_layer()) return std::nullopt;
  const int64_t d = config.hidden_size;
  return Linear(parameters, prefix + ".merge", d, d, config.moe.projection_bias, Init::xavier_uniform(d, d, 1),
                Init::zeros());
}

}  // namespace

MhMoe::MhMoe(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t moe_index)
    : heads_(config.moe.heads),
      inner_residual_(config.moe.residual == MoeResidual::kInner),
      head_(make_head(config, parameters, prefix)),
      merge_(make_merge(config, parameters, prefix)),
      moe_(config, parameters, prefix, config.sub_token_size(), moe_index) {
  if (config.moe.shared_expert_hidden_size > 0) {
    shared_expert_.emplace(config.ffn, parameters, prefix + ".shared_expert", config.hidden_size,
                           config.moe.shared_expert_hidden_size);
  }
}

void MhMoe::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& residual) const {
  const StepPartScope part(pass.ctx, StepPart::kHeadAndMerge);
  saved.z = x;
  if (head_) {
    saved.z = pass.allocate("head layer output", pass.compute, {x.rows(), x.cols()});
    head_->forward(pass, saved.z, x);
  }
  if (merge_) saved.merged = pass.allocate("merge layer input", pass.compute, {x.rows(), x.cols()});
  const Tensor z = split(saved.z);
  const Tensor inner = inner_residual_ ? z : Tensor{};
  moe_.route(pass, saved.moe, z);
  if (shared_expert_) saved.shared_expert.pre = shared_expert_->allocate_kept(pass, x.rows());

  const ArenaScope scope = pass.scope();
  // The shared expert's hidden layer is computed while rows travel; where none do, after the routed experts have given
  // their memory back.
  Tensor activated;
  const auto hidden = [&] { shared_expert_->forward_hidden(pass, saved.shared_expert, activated, x); };
  comm::Meanwhile meanwhile;
  if (shared_expert_ && pass.experts_are_shared_out()) {
    activated = shared_expert_->allocate_activated(pass, x.rows());
    meanwhile = hidden;
  }
  if (merge_) {
    moe_.forward(pass, saved.moe, split(saved.merged), z, inner, meanwhile);
    merge_->forward(pass, out, saved.merged, residual);
  } else {
    moe_.forward(pass, saved.moe, split(out), z, split(residual), meanwhile);
    if (inner_residual_) ops::add(pass.ctx, {.out = out, .a = out, .b = saved.z});
  }
  if (!shared_expert_) return;
  if (!meanwhile) {
    activated = shared_expert_->allocate_activated(pass, x.rows());
    hidden();
  }
  shared_expert_->forward_out(pass, out, activated, out);
}

void MhMoe::backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out,
                     const Tensor& x) const {
  const StepPartScope part(pass.ctx, StepPart::kHeadAndMerge);
  const ArenaScope scope = pass.scope();
  Tensor grad_merged = grad_out;
  if (merge_) {
    grad_merged = pass.allocate("merge layer gradient", pass.compute, {x.rows(), x.cols()});
    merge_->backward_input(pass, grad_merged, grad_out);
  }
  const Tensor grad_z = head_ ? pass.allocate("head layer gradient", DType::kF32, {x.rows(), x.cols()}) : grad_x;
  Tensor inner;
  if (inner_residual_) {
    inner = split(grad_z);
    ops::cast(pass.ctx, {.out = grad_z, .in = grad_merged});
  }
  const auto meanwhile = [&] {
    const StepPartScope part(pass.ctx, StepPart::kHeadAndMerge);
    if (merge_) merge_->backward_parameters(pass, grad_out, saved.merged);
    if (shared_expert_) shared_expert_->backward_parameters(pass, saved.shared_expert, grad_out, x);
  };
  moe_.backward(pass, saved.moe, split(grad_z), split(grad_merged), split(saved.z), inner, std::cref(meanwhile));
  if (head_) {
    const Tensor grad_head = converted(pass, grad_z, pass.compute);
    head_->backward_parameters(pass, grad_head, x);
    head_->backward_input(pass, grad_x, grad_head);
  }
  if (shared_expert_) shared_expert_->backward_input(pass, saved.shared_expert, grad_x, grad_x);
}

}  // namespace mhmoe::nn
