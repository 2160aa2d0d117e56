#include "nn/linear.h"

#include "ops/elementwise.h"
#include "ops/matmul.h"

namespace mhmoe::nn {

Linear::Linear(ParameterStore& parameters, const std::vector<LinearPart>& parts, int64_t in, bool bias) {
  std::vector<ParameterPart> weights, biases;
  int64_t out = 0;
  for (const LinearPart& part : parts) {
    weights.push_back({part.prefix + ".weight", {part.out, in}, Init::linear_default(in)});
    biases.push_back({part.prefix + ".bias", {part.out}, Init::linear_default(in)});
    out += part.out;
  }
  weight_ = &parameters.add_packed(ParameterKind::kMatrix, {out, in}, std::move(weights));
  if (bias) bias_ = &parameters.add_packed(ParameterKind::kVector, {out}, std::move(biases));
}

Linear::Linear(ParameterStore& parameters, const std::string& prefix, int64_t out, int64_t in, bool bias,
               Init weight_init, Init bias_init)
    : weight_(&parameters.add(ParameterKind::kMatrix, prefix + ".weight", {out, in}, weight_init)) {
  if (bias) bias_ = &parameters.add(ParameterKind::kVector, prefix + ".bias", {out}, bias_init);
}

void Linear::forward(Pass& pass, const Tensor& out, const Tensor& x, const Tensor& addend) const {
  ops::matmul(pass.ctx, {.out = out,
                         .a = x,
                         .b = weight_->value,
                         .transpose_b = true,
                         .bias = bias_ != nullptr ? bias_->value : Tensor{},
                         .addend = addend});
}

void Linear::backward_parameters(Pass& pass, const Tensor& grad_out, const Tensor& x) const {
  const Tensor grad_weight = pass.gradients->gradient_of(*weight_);
  ops::matmul(pass.ctx, {.out = grad_weight, .a = grad_out, .b = x, .transpose_a = true, .addend = grad_weight});
  if (bias_ != nullptr) {
    ops::bias_backward(pass.ctx, {.grad_bias = pass.gradients->gradient_of(*bias_), .grad_out = grad_out});
  }
}

void Linear::backward_input(Pass& pass, const Tensor& grad_x, const Tensor& grad_out, const Tensor& addend) const {
  ops::matmul(pass.ctx, {.out = grad_x, .a = grad_out, .b = weight_->value, .addend = addend});
}

Tensor converted(Pass& pass, const Tensor& x, DType dtype) {
  if (x.dtype == dtype) return x;
  const Tensor copy = pass.allocate("converted copy", dtype, {x.rows(), x.cols()});
  ops::cast(pass.ctx, {.out = copy, .in = x});
  return copy;
}

}  // namespace mhmoe::nn
