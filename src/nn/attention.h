// Causal self-attention with rotary positions.
#pragma once

#include "nn/linear.h"
#include "nn/model_config.h"
#include "ops/attention.h"

namespace mhmoe::nn {

class Attention {
 public:
  // layer: which block's, for the names of parameters and for the cache.
  Attention(const ModelConfig& config, ParameterStore& parameters, int64_t layer);

  struct Saved {
    Tensor qkv;          // compute [N, 3d], rotated
    Tensor context;      // compute [N, d]
    Tensor log_sum_exp;  // f32 [B, H, T]; absent with a cache
  };

  // out: f32 [N, d], overwritten with residual + attention(x). x: compute [N, d]; residual: f32 [N, d].
  void forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& residual) const;
  // grad_x: compute [N, d], overwritten; grad_out: compute [N, d].
  void backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out, const Tensor& x) const;

 private:
  ops::AttentionShape shape(const Pass& pass) const;
  void attend(Pass& pass, Saved& saved) const;

  int64_t layer_, heads_, head_size_;
  float rope_base_;
  std::string prefix_;
  Linear qkv_;
  Linear out_;
};

}  // namespace mhmoe::nn
