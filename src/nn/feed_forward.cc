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

void FeedForward::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& addend) const {
  saved.pre = pass.allocate("ffn pre-activation", pass.compute, {x.rows(), up_.out_size()});
  const ArenaScope scope = pass.scope();
  const Tensor activated = pass.allocate("ffn activation", pass.compute, {x.rows(), hidden_size_});

  up_.forward(pass, saved.pre, x);
  pass.ctx.observe(saved.pre, "{}.pre_activation", prefix_);
  ops::activation_forward(pass.ctx, {.out = activated, .pre = saved.pre, .kind = activation_});
  down_.forward(pass, out, activated, addend);
}

void FeedForward::backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out,
                           const Tensor& x, const Tensor& addend) const {
  const ArenaScope scope = pass.scope();
  // First the gradient of the activation, then, in place, the activation itself.
  const Tensor activated = pass.allocate("ffn activation", pass.compute, {x.rows(), hidden_size_});
  const Tensor grad_pre = saved.pre;

  down_.backward_input(pass, activated, grad_out);
  ops::activation_backward(
      pass.ctx,
      {.grad_pre = grad_pre, .grad_out = activated, .pre = saved.pre, .kind = activation_, .scaled_out = activated});
  pass.ctx.observe(grad_pre, "grad.{}.pre_activation", prefix_);
  down_.backward_parameters(pass, grad_out, activated);
  up_.backward_parameters(pass, grad_pre, x);
  up_.backward_input(pass, grad_x, grad_pre, addend);
}

}  // namespace mhmoe::nn
