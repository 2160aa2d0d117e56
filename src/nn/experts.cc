#include "nn/experts.h"

#include "nn/feed_forward.h"

namespace mhmoe::nn {
namespace {

comm::ExpertRange local_experts(const MoeConfig& moe) {
  if (moe.local_experts == 0) return {0, moe.experts};
  return {moe.local_experts_begin, moe.local_experts};
}

// One parameter for all experts on this rank: first every named matrix (or bias) of the first, then of the next.
Parameter& add_stacked(ParameterStore& parameters, ParameterKind kind, const MoeConfig& moe, const std::string& prefix,
                       const std::vector<LinearPart>& one_expert, int64_t in) {
  std::vector<ParameterPart> parts;
  int64_t out = 0;
  for (const LinearPart& part : one_expert) out += part.out;
  for (int64_t e = 0; e < moe.experts; ++e) {
    for (const LinearPart& part : one_expert) {
      const std::string name = fmt::format("{}.{}.{}", prefix, e, part.prefix);
      if (kind == ParameterKind::kMatrix) {
        parts.push_back({name + ".weight", {part.out, in}, Init::linear_default(in)});
      } else {
        parts.push_back({name + ".bias", {part.out}, Init::linear_default(in)});
      }
    }
  }
  const comm::ExpertRange experts = local_experts(moe);
  std::vector<int64_t> dims = {experts.count, out};
  if (kind == ParameterKind::kMatrix) dims.push_back(in);
  return parameters.add_experts(kind, std::move(dims), std::move(parts), experts.begin * one_expert.size(),
                                experts.count * one_expert.size());
}

std::vector<LinearPart> without_prefix(ops::Activation activation, int64_t hidden) {
  std::vector<LinearPart> parts = input_projections(activation, "", hidden);
  for (LinearPart& part : parts) part.prefix.erase(0, 1);
  return parts;
}

// Of a stacked tensor the experts of the range.
Tensor part_of(const Tensor& stack, comm::ExpertRange experts) {
  Tensor part = stack;
  part.data = stack.slice(experts.begin * stack.count() / stack.dims[0], 0).data;
  part.dims[0] = experts.count;
  return part;
}

}  // namespace

Experts::Experts(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width)
    : activation_(config.ffn.activation), hidden_size_(config.moe.expert_hidden_size) {
  const auto up = without_prefix(activation_, hidden_size_);
  const std::vector<LinearPart> down = {{"down", width}};
  up_ = &add_stacked(parameters, ParameterKind::kMatrix, config.moe, prefix, up, width);
  down_ = &add_stacked(parameters, ParameterKind::kMatrix, config.moe, prefix, down, hidden_size_);
  if (!config.ffn.bias) return;
  up_bias_ = &add_stacked(parameters, ParameterKind::kVector, config.moe, prefix, up, width);
  down_bias_ = &add_stacked(parameters, ParameterKind::kVector, config.moe, prefix, down, hidden_size_);
}

void Experts::forward(Pass& pass, const Tensor& out, const Tensor& pre, const Tensor& rows,
                      const ops::RowGroups& groups, comm::ExpertRange experts) const {
  const StepPartScope part(pass.ctx, StepPart::kExperts);
  const ArenaScope scope = pass.scope();
  const Tensor activated = pass.allocate("expert activation", pass.compute, {rows.rows(), hidden_size_});
  ops::grouped_matmul(pass.ctx, {.out = pre,
                                 .a = rows,
                                 .weight = part_of(up_->value, experts),
                                 .groups = groups,
                                 .transpose_weight = true,
                                 .bias = up_bias_ != nullptr ? part_of(up_bias_->value, experts) : Tensor{},
                                 .activated = activated,
                                 .activation = activation_});
  ops::grouped_matmul(pass.ctx, {.out = out,
                                 .a = activated,
                                 .weight = part_of(down_->value, experts),
                                 .groups = groups,
                                 .transpose_weight = true,
                                 .bias = down_bias_ != nullptr ? part_of(down_bias_->value, experts) : Tensor{}});
}

void Experts::backward(Pass& pass, const Backward& args) const {
  const StepPartScope part(pass.ctx, StepPart::kExperts);
  const ArenaScope scope = pass.scope();
  // First upstream times the down-projection, then, in place, the gate-scaled activation itself.
  const Tensor activated = pass.allocate("expert activation", pass.compute, {args.rows.rows(), hidden_size_});
  const Tensor grad_pre = args.pre;
  ops::grouped_matmul(pass.ctx, {.out = activated,
                                 .a = args.upstream,
                                 .weight = part_of(down_->value, args.experts),
                                 .groups = args.groups,
                                 .transpose_weight = false});
  ops::activation_backward(pass.ctx, {.grad_pre = grad_pre,
                                      .grad_out = activated,
                                      .pre = args.pre,
                                      .kind = activation_,
                                      .scaled_out = activated,
                                      .gate = args.gate,
                                      .grad_gate = args.grad_gate,
                                      .row_assignment = args.row_assignment});
  backward_down(pass, args, activated);
  ops::grouped_weight_grad(
      pass.ctx,
      {.grad_weight = gradient_of(pass, args, *up_), .grad_out = grad_pre, .x = args.rows, .groups = args.groups});
  if (up_bias_ != nullptr) {
    ops::grouped_bias_backward(
        pass.ctx, {.grad_bias = gradient_of(pass, args, *up_bias_), .grad_out = grad_pre, .groups = args.groups});
  }
  ops::grouped_matmul(pass.ctx, {.out = args.grad_rows,
                                 .a = grad_pre,
                                 .weight = part_of(up_->value, args.experts),
                                 .groups = args.groups,
                                 .transpose_weight = false});
}

Tensor Experts::gradient_of(Pass& pass, const Backward& args, const Parameter& parameter) {
  return part_of(pass.gradients->gradient_of(parameter, args.source), args.experts);
}

void Experts::backward_down(Pass& pass, const Backward& args, const Tensor& activated) const {
  ops::grouped_weight_grad(pass.ctx, {.grad_weight = gradient_of(pass, args, *down_),
                                      .grad_out = args.upstream,
                                      .x = activated,
                                      .groups = args.groups});
  if (down_bias_ == nullptr) return;
  ops::grouped_bias_backward(pass.ctx, {.grad_bias = gradient_of(pass, args, *down_bias_),
                                        .grad_out = args.upstream,
                                        .groups = args.groups,
                                        .bias = part_of(down_bias_->value, args.experts),
                                        .gate = args.gate,
                                        .grad_gate = args.grad_gate,
                                        .row_assignment = args.row_assignment});
}

}  // namespace mhmoe::nn
