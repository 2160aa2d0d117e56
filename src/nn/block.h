// One pre-norm block: x += attention(norm(x)); x += feed_forward(norm(x)) or x += moe(norm(x)).
#pragma once

#include <memory>
#include <optional>

#include "nn/attention.h"
#include "nn/feed_forward.h"
#include "nn/mh_moe.h"
#include "nn/model_config.h"

namespace mhmoe::nn {

class Block {
 public:
  // moe_index: which MoE layer this is, for the statistics; ignored in dense blocks.
  Block(const ModelConfig& config, ParameterStore& parameters, int64_t layer, int64_t moe_index);

  struct Saved {
    Tensor attention_inv_rms, ffn_inv_rms;  // f32 [N]
    Tensor attention_input, ffn_input;      // normed, compute dtype [N, d]
    Tensor middle;                          // f32 [N, d], the residual stream after attention
    Attention::Saved attention;
    FeedForward::Saved ffn;
    MhMoe::Saved moe;
  };

  // out: f32 [N, d], overwritten; input: f32 [N, d].
  void forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& input) const;
  // grad: f32 [N, d], on entry d objective / d out, on return d objective / d input.
  void backward(Pass& pass, const Saved& saved, const Tensor& grad, const Tensor& input) const;

  // Parameter::order of its first; its others follow.
  int64_t first_parameter() const { return attention_norm_.order; }

 private:
  float norm_eps_;
  const Parameter& attention_norm_;
  Attention attention_;
  const Parameter& ffn_norm_;
  std::optional<FeedForward> ffn_;  // exactly one of these two
  std::optional<MhMoe> moe_;
};

}  // namespace mhmoe::nn
