// A pre-training task: what differs between causal, masked and multi-modal training: batch, input embeddings, loss
// head.
#pragma once

#include <memory>

#include "nn/lm_head.h"
#include "nn/parameters.h"
#include "nn/pass.h"
#include "nn/transformer.h"

namespace mhmoe::train {

// One micro-batch on the device. tokens, targets: i32 [B, T]; target -1 is not counted.
struct DeviceBatch {
  Tensor tokens, targets;
};

// f32 [1] in the state arena, holding `scale`.
Tensor upload_scale(Context& ctx, float scale);

class Task {
 public:
  virtual ~Task() = default;
  virtual nn::ParameterStore& parameters() = 0;
  virtual int64_t moe_layers() const = 0;

  // One micro-batch: accumulates onto pass.gradients the gradient of
  //   scale[0] * sum of cross-entropies of counted targets + pass.balance_scale * sum of the layers' balance losses.
  // losses: f32 [B * T] cross-entropies in nats, 0 where not counted, overwritten. scale: f32 [1]. Statistics as pass
  // says.
  virtual void forward_backward(nn::Pass& pass, const DeviceBatch& batch, const Tensor& losses,
                                const Tensor& scale) = 0;
  // Cross-entropies alone.
  virtual void evaluate(nn::Pass& pass, const DeviceBatch& batch, const Tensor& losses) = 0;
};

// Next-token prediction.
class CausalLm final : public Task {
 public:
  // config must outlive the task. logit_chunk_rows: rows of logits that exist at a time, 0 to choose.
  CausalLm(const nn::ModelConfig& config, bool recompute_blocks, int64_t logit_chunk_rows = 0);

  nn::ParameterStore& parameters() override { return parameters_; }
  int64_t moe_layers() const override { return transformer_.moe_layers(); }
  void forward_backward(nn::Pass& pass, const DeviceBatch& batch, const Tensor& losses, const Tensor& scale) override;
  void evaluate(nn::Pass& pass, const DeviceBatch& batch, const Tensor& losses) override;
  // out: f32 [R, V], overwritten with the logits of the last R rows. tokens: i32 [B, T]. A cache in `pass` advances by
  // T.
  void logits(nn::Pass& pass, const Tensor& tokens, const Tensor& out);

 private:
  // hidden: compute dtype [N, d], the normed final hidden state, overwritten.
  void forward(nn::Pass& pass, const Tensor& tokens, const Tensor& hidden);

  const nn::ModelConfig& config_;
  nn::ParameterStore parameters_;
  const nn::Parameter& embedding_;
  nn::Transformer transformer_;
  nn::LmHead head_;
  nn::Transformer::Saved saved_;
};

}  // namespace mhmoe::train
