#include "nn/attention.h"

#include "nn/key_value_cache.h"
#include "ops/rotary.h"

namespace mhmoe::nn {

Attention::Attention(const ModelConfig& config, ParameterStore& parameters, int64_t layer)
    : layer_(layer),
      heads_(config.attention_heads),
      head_size_(config.head_size()),
      rope_base_(static_cast<float>(config.rope_base)),
      prefix_(fmt::format("layers.{}.attention", layer)),
      qkv_(parameters,
           {{prefix_ + ".q", config.hidden_size},
            {prefix_ + ".k", config.hidden_size},
            {prefix_ + ".v", config.hidden_size}},
           config.hidden_size, config.attention_bias),
      out_(parameters, {{prefix_ + ".out", config.hidden_size}}, config.hidden_size, config.attention_bias) {}

ops::AttentionShape Attention::shape(const Pass& pass) const {
  return {pass.batch, pass.sequence_length, heads_, head_size_, ops::AttentionMask::kCausal};
}

void Attention::attend(Pass& pass, Saved& saved) const {
  if (pass.cache != nullptr) {
    ops::attention_cached(pass.ctx, {.out = saved.context,
                                     .keys = pass.cache->keys(layer_),
                                     .values = pass.cache->values(layer_),
                                     .qkv = saved.qkv,
                                     .shape = shape(pass),
                                     .first_position = pass.cache->length()});
    return;
  }
  saved.log_sum_exp = pass.allocate("attention log-sum-exp", DType::kF32, {pass.batch, heads_, pass.sequence_length});
  ops::attention_forward(
      pass.ctx, {.out = saved.context, .log_sum_exp = saved.log_sum_exp, .qkv = saved.qkv, .shape = shape(pass)});
}

void Attention::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& residual) const {
  const StepPartScope part(pass.ctx, StepPart::kAttention);
  const int64_t n = pass.tokens(), d = heads_ * head_size_;
  saved.qkv = pass.allocate("attention qkv", pass.compute, {n, 3 * d});
  saved.context = pass.allocate("attention context", pass.compute, {n, d});

  qkv_.forward(pass, saved.qkv, x);
  ops::rotary(pass.ctx, {.qkv = saved.qkv,
                         .sequence_length = pass.sequence_length,
                         .heads = heads_,
                         .base = rope_base_,
                         .first_position = pass.cache == nullptr ? 0 : pass.cache->length()});
  pass.ctx.observe(saved.qkv, "{}.qkv", prefix_);
  attend(pass, saved);
  pass.ctx.observe(saved.context, "{}.context", prefix_);
  out_.forward(pass, out, saved.context, residual);
}

void Attention::backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out,
                         const Tensor& x) const {
  const StepPartScope part(pass.ctx, StepPart::kAttention);
  const ArenaScope scope = pass.scope();
  const int64_t n = pass.tokens(), d = heads_ * head_size_;
  const Tensor grad_context = pass.allocate("attention context gradient", pass.compute, {n, d});
  const Tensor grad_qkv = pass.allocate("attention qkv gradient", pass.compute, {n, 3 * d});

  out_.backward_parameters(pass, grad_out, saved.context);
  out_.backward_input(pass, grad_context, grad_out);
  ops::attention_backward(pass.ctx, {.grad_qkv = grad_qkv,
                                     .grad_out = grad_context,
                                     .qkv = saved.qkv,
                                     .out = saved.context,
                                     .log_sum_exp = saved.log_sum_exp,
                                     .shape = shape(pass)});
  ops::rotary(
      pass.ctx,
      {.qkv = grad_qkv, .sequence_length = pass.sequence_length, .heads = heads_, .base = rope_base_, .inverse = true});
  pass.ctx.observe(grad_qkv, "grad.{}.qkv", prefix_);
  qkv_.backward_parameters(pass, grad_qkv, x);
  qkv_.backward_input(pass, grad_x, grad_qkv);
}

}  // namespace mhmoe::nn
