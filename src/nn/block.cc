#include "nn/block.h"

#include "ops/rms_norm.h"

namespace mhmoe::nn {

Block::Block(const ModelConfig& config, ParameterStore& parameters, int64_t layer, int64_t moe_index)
    : norm_eps_(static_cast<float>(config.norm_eps)),
      attention_norm_(parameters.add(ParameterKind::kVector, fmt::format("layers.{}.attention_norm.weight", layer),
                                     {config.hidden_size}, Init::ones())),
      attention_(config, parameters, layer),
      ffn_norm_(parameters.add(ParameterKind::kVector, fmt::format("layers.{}.ffn_norm.weight", layer),
                               {config.hidden_size}, Init::ones())) {
  if (config.is_moe_layer(layer)) {
    moe_.emplace(config, parameters, fmt::format("layers.{}.moe", layer), moe_index);
  } else {
    ffn_.emplace(config.ffn, parameters, fmt::format("layers.{}.ffn", layer), config.hidden_size,
                 config.ffn.hidden_size);
  }
}

void Block::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& input) const {
  const StepPartScope part(pass.ctx, StepPart::kNorms);
  const int64_t n = input.rows(), d = input.cols();
  saved.attention_inv_rms = pass.allocate("norm statistics", DType::kF32, {n});
  saved.ffn_inv_rms = pass.allocate("norm statistics", DType::kF32, {n});
  saved.attention_input = pass.allocate("norm output", pass.compute, {n, d});
  saved.ffn_input = pass.allocate("norm output", pass.compute, {n, d});
  saved.middle = pass.allocate("residual stream", DType::kF32, {n, d});

  ops::rms_norm_forward(pass.ctx, {.y = saved.attention_input,
                                   .inv_rms = saved.attention_inv_rms,
                                   .x = input,
                                   .weight = attention_norm_.value,
                                   .eps = norm_eps_});
  attention_.forward(pass, saved.attention, saved.middle, saved.attention_input, input);
  ops::rms_norm_forward(pass.ctx, {.y = saved.ffn_input,
                                   .inv_rms = saved.ffn_inv_rms,
                                   .x = saved.middle,
                                   .weight = ffn_norm_.value,
                                   .eps = norm_eps_});
  if (ffn_) {
    ffn_->forward(pass, saved.ffn, out, saved.ffn_input, saved.middle);
  } else {
    moe_->forward(pass, saved.moe, out, saved.ffn_input, saved.middle);
  }
}

void Block::backward(Pass& pass, const Saved& saved, const Tensor& grad, const Tensor& input) const {
  const StepPartScope part(pass.ctx, StepPart::kNorms);
  {
    const ArenaScope scope = pass.scope();
    const Tensor grad_out = converted(pass, grad, pass.compute);
    // MoE layers add several gradients up and do so in f32.
    const Tensor grad_x =
        pass.allocate("norm output gradient", moe_ ? DType::kF32 : pass.compute, {input.rows(), input.cols()});
    if (ffn_) {
      ffn_->backward(pass, saved.ffn, grad_x, grad_out, saved.ffn_input);
    } else {
      moe_->backward(pass, saved.moe, grad_x, grad_out, saved.ffn_input);
    }
    ops::rms_norm_backward(pass.ctx, {.grad_x = grad,
                                      .grad_weight = pass.gradients->gradient_of(ffn_norm_),
                                      .grad_y = grad_x,
                                      .x = saved.middle,
                                      .inv_rms = saved.ffn_inv_rms,
                                      .weight = ffn_norm_.value});
  }
  const ArenaScope scope = pass.scope();
  const Tensor grad_middle = converted(pass, grad, pass.compute);
  const Tensor grad_x = pass.allocate("norm output gradient", pass.compute, {input.rows(), input.cols()});
  attention_.backward(pass, saved.attention, grad_x, grad_middle, saved.attention_input);
  ops::rms_norm_backward(pass.ctx, {.grad_x = grad,
                                    .grad_weight = pass.gradients->gradient_of(attention_norm_),
                                    .grad_y = grad_x,
                                    .x = input,
                                    .inv_rms = saved.attention_inv_rms,
                                    .weight = attention_norm_.value});
}

}  // namespace mhmoe::nn
