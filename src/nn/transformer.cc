#include "nn/transformer.h"

#include "ops/rms_norm.h"

namespace mhmoe::nn {

Transformer::Transformer(const ModelConfig& config, ParameterStore& parameters, bool recompute_blocks)
    : config_(config), recompute_blocks_(recompute_blocks) {
  blocks_.reserve(static_cast<size_t>(config.layers));
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    blocks_.emplace_back(config, parameters, layer, moe_layers_);
    if (config.is_moe_layer(layer)) ++moe_layers_;
  }
  norm_ = &parameters.add(ParameterKind::kVector, "final_norm.weight", {config.hidden_size}, Init::ones());
}

void Transformer::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& input) const {
  const StepPartScope part(pass.ctx, StepPart::kNorms);
  saved.blocks.resize(blocks_.size());
  saved.inputs.resize(blocks_.size() + 1);
  saved.inputs[0] = input;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    saved.inputs[i + 1] = pass.allocate("residual stream", DType::kF32, {input.rows(), input.cols()});
    const Arena::Mark mark = pass.ctx.step().mark();
    blocks_[i].forward(pass, saved.blocks[i], saved.inputs[i + 1], saved.inputs[i]);
    const bool needed = pass.gradients != nullptr && !recompute_blocks_;
    if (!needed) pass.ctx.step().release(mark);
    pass.ctx.observe(saved.inputs[i + 1], "layers.{}.output", i);
  }
  saved.inv_rms = pass.allocate("norm statistics", DType::kF32, {input.rows()});
  ops::rms_norm_forward(pass.ctx, {.y = out,
                                   .inv_rms = saved.inv_rms,
                                   .x = saved.inputs.back(),
                                   .weight = norm_->value,
                                   .eps = static_cast<float>(config_.norm_eps)});
}

void Transformer::backward(Pass& pass, Saved& saved, const Tensor& grad_input, const Tensor& grad_out) const {
  const StepPartScope part(pass.ctx, StepPart::kNorms);
  // The residual stream's gradient, turned in place from each block's output to its input.
  const Tensor& grad = grad_input;
  pass.ctx.fill_zero(grad);
  ops::rms_norm_backward(pass.ctx, {.grad_x = grad,
                                    .grad_weight = pass.gradients->gradient_of(*norm_),
                                    .grad_y = grad_out,
                                    .x = saved.inputs.back(),
                                    .inv_rms = saved.inv_rms,
                                    .weight = norm_->value});
  for (size_t i = blocks_.size(); i-- > 0;) {
    const ArenaScope scope = pass.scope();
    if (recompute_blocks_) {
      const Tensor output = pass.allocate("residual stream", DType::kF32, {grad.rows(), grad.cols()});
      blocks_[i].forward(pass, saved.blocks[i], output, saved.inputs[i]);
    }
    blocks_[i].backward(pass, saved.blocks[i], grad, saved.inputs[i]);
    pass.gradients->completed_from(blocks_[i].first_parameter());
    pass.ctx.observe(grad, "grad.layers.{}.input", i);
  }
}

}  // namespace mhmoe::nn
