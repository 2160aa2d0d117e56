#include <cmath>

#include "nn/key_value_cache.h"
#include "ops/embedding.h"
#include "train/task.h"

namespace mhmoe::train {

using nn::Init;
using nn::Parameter;
using nn::ParameterKind;
using nn::Pass;

namespace {

Parameter& add_table(const nn::ModelConfig& config, nn::ParameterStore& parameters, const char* name) {
  const double deviation = 1 / std::sqrt(static_cast<double>(config.hidden_size));
  return parameters.add(ParameterKind::kMatrix, name, {config.vocab_size, config.hidden_size}, Init::normal(deviation));
}

}  // namespace

CausalLm::CausalLm(const nn::ModelConfig& config, bool recompute_blocks, int64_t logit_chunk_rows)
    : config_(config),
      embedding_(add_table(config, parameters_, "embed.weight")),
      transformer_(config, parameters_, recompute_blocks),
      head_(config.tie_embeddings ? embedding_ : add_table(config, parameters_, "lm_head.weight"), logit_chunk_rows) {}

Tensor upload_scale(Context& ctx, float scale) {
  const Tensor out = ctx.state().allocate("loss scale", DType::kF32, {1});
  ctx.upload(out, &scale);
  return out;
}

void CausalLm::forward(Pass& pass, const Tensor& tokens, const Tensor& hidden) {
  const Tensor input = pass.allocate("residual stream", DType::kF32, {pass.tokens(), config_.hidden_size});
  const StepPartScope part(pass.ctx, StepPart::kEmbedding);
  ops::embedding_forward(pass.ctx, {.out = input, .table = embedding_.value, .tokens = tokens});
  transformer_.forward(pass, saved_, hidden, input);
}

void CausalLm::forward_backward(Pass& pass, const DeviceBatch& batch, const Tensor& losses, const Tensor& scale) {
  const ArenaScope scope = pass.scope();
  const Tensor hidden = pass.allocate("final norm output", pass.compute, {pass.tokens(), config_.hidden_size});
  forward(pass, batch.tokens, hidden);

  const Tensor grad_hidden = pass.allocate("final norm gradient", pass.compute, {pass.tokens(), config_.hidden_size});
  const Tensor grad = pass.allocate("residual gradient", DType::kF32, {pass.tokens(), config_.hidden_size});
  head_.forward_backward(pass, losses, grad_hidden, hidden, batch.targets, scale);
  transformer_.backward(pass, saved_, grad, grad_hidden);
  const StepPartScope part(pass.ctx, StepPart::kEmbedding);
  ops::embedding_backward(
      pass.ctx, {.grad_table = pass.gradients->gradient_of(embedding_), .grad_out = grad, .tokens = batch.tokens});
}

void CausalLm::evaluate(Pass& pass, const DeviceBatch& batch, const Tensor& losses) {
  const ArenaScope scope = pass.scope();
  const Tensor hidden = pass.allocate("final norm output", pass.compute, {pass.tokens(), config_.hidden_size});
  forward(pass, batch.tokens, hidden);
  head_.forward(pass, losses, hidden, batch.targets);
}

void CausalLm::logits(Pass& pass, const Tensor& tokens, const Tensor& out) {
  const ArenaScope scope = pass.scope();
  const Tensor hidden = pass.allocate("final norm output", pass.compute, {pass.tokens(), config_.hidden_size});
  forward(pass, tokens, hidden);
  head_.logits(pass, out, hidden.slice_rows(hidden.rows() - out.rows(), out.rows()));
  if (pass.cache != nullptr) pass.cache->advance(pass.sequence_length);
}

}  // namespace mhmoe::train
