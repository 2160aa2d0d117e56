#include "nn/feed_forward.h"

namespace mhmoe::nn {

std::vector<LinearPart> input_projections(ops::Activation activation, const std::string& prefix, int64_t hidden) {
  if (activation == ops::Activation::kSwiglu) return {{prefix + ".gate", hidden}, {prefix + ".up", hidden}};
  return {{prefix + ".up", hidden}};
}

FeedForward::FeedForward(const FeedForwardConfig& config, ParameterStore& parameters, const std::string& prefix,
                         int64_t model_size, int64_t hidden_size)
    : activation_(config.activation),
      hidden_size_(hidden_size),
      prefix_(prefix),
      up_(parameters, input_projections(config.activation, prefix, hidden_size), model_size, config.bias),
      down_(parameters, {{prefix + ".down", model_size}}, hidden_size, config.bias) {}

Tensor FeedForward::allocate_kept(Pass& pass, int64_t rows) const {
  return pass.allocate("ffn pre-activation", pass.compute, {rows, up_.out_size()});
}

Tensor FeedForward::allocate_activated(Pass& pass, int64_t rows) const {
  return pass.allocate("ffn activation", pass.compute, {rows, hidden_size_});
}

void FeedForward::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& addend) const {
  saved.pre = allocate_kept(pass, x.rows());
  const ArenaScope scope = pass.scope();
  const Tensor activated = allocate_activated(pass, x.rows());
  forward_hidden(pass, saved, activated, x);
  forward_out(pass, out, activated, addend);
}

void FeedForward::forward_hidden(Pass& pass, const Saved& saved, const Tensor& activated, const Tensor& x) const {
  const StepPartScope part(pass.ctx, StepPart::kFeedForward);
  up_.forward(pass, saved.pre, x);
  pass.ctx.observe(saved.pre, "{}.pre_activation", prefix_);
  ops::activation_forward(pass.ctx, {.out = activated, .pre = saved.pre, .kind = activation_});
}

void FeedForward::forward_out(Pass& pass, const Tensor& out, const Tensor& activated, const Tensor& addend) const {
  const StepPartScope part(pass.ctx, StepPart::kFeedForward);
  down_.forward(pass, out, activated, addend);
}

void FeedForward::backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out,
                           const Tensor& x, const Tensor& addend) const {
  backward_parameters(pass, saved, grad_out, x);
  backward_input(pass, saved, grad_x, addend);
}

void FeedForward::backward_parameters(Pass& pass, const Saved& saved, const Tensor& grad_out, const Tensor& x) const {
  const StepPartScope part(pass.ctx, StepPart::kFeedForward);
  const ArenaScope scope = pass.scope();
  // First the gradient of the activation, then, in place, the activation itself.
  const Tensor activated = allocate_activated(pass, x.rows());
  const Tensor grad_pre = saved.pre;

  down_.backward_input(pass, activated, grad_out);
  ops::activation_backward(
      pass.ctx,
      {.grad_pre = grad_pre, .grad_out = activated, .pre = saved.pre, .kind = activation_, .scaled_out = activated});
  pass.ctx.observe(grad_pre, "grad.{}.pre_activation", prefix_);
  down_.backward_parameters(pass, grad_out, activated);
  up_.backward_parameters(pass, grad_pre, x);
}

void FeedForward::backward_input(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& addend) const {
  const StepPartScope part(pass.ctx, StepPart::kFeedForward);
  up_.backward_input(pass, grad_x, saved.pre, addend);
}

}  // namespace mhmoe::nn
