// Logits and cross-entropy in row chunks, so that [N, vocab] never exists whole; forward and backward in one go.
#pragma once

#include "nn/model_config.h"
#include "nn/parameters.h"
#include "nn/pass.h"

namespace mhmoe::nn {

class LmHead {
 public:
  // weight: [V, d], the embedding's when tied.
  explicit LmHead(const Parameter& weight, int64_t chunk_rows = 0);

  // logits: f32 [R, V], overwritten; hidden: compute dtype [R, d].
  void logits(Pass& pass, const Tensor& logits, const Tensor& hidden) const;
  // losses: f32 [N] nats (0 where the target is -1), overwritten; hidden: compute dtype [N, d]; targets: i32 [N].
  void forward(Pass& pass, const Tensor& losses, const Tensor& hidden, const Tensor& targets) const;
  // The same, and of scale[0] * sum(losses): grad_hidden, like hidden, overwritten; the weight's gradient accumulated.
  // scale: f32 [1].
  void forward_backward(Pass& pass, const Tensor& losses, const Tensor& grad_hidden, const Tensor& hidden,
                        const Tensor& targets, const Tensor& scale) const;

 private:
  int64_t chunk_rows(const Pass& pass, int64_t rows) const;
  void logits_and_losses(Pass& pass, const Tensor& logits, const Tensor& losses, const Tensor& grad_logits,
                         const Tensor& hidden, const Tensor& targets, const Tensor& scale = {}) const;

  const Parameter& weight_;
  int64_t chunk_rows_;
};

}  // namespace mhmoe::nn
