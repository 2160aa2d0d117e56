// The Multi-Head Mixture-of-Experts layer: head projection, split into sub-tokens, sparse mixture, merge, merge
// projection. With heads = 1 and neither projection it is plain sparse MoE: one code path. See docs/mh_moe.md.
#pragma once

#include <optional>

#include "nn/feed_forward.h"
#include "nn/moe.h"

namespace mhmoe::nn {

class MhMoe {
 public:
  MhMoe(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t moe_index);

  struct Saved {
    Tensor z;       // compute [N, d]: the head layer's output, or its input where there is none
    Tensor merged;  // compute [N, d]: the merge layer's input; absent without one
    Moe::Saved moe;
    FeedForward::Saved shared_expert;
  };

  // out: f32 [N, d], overwritten with residual + mh_moe(x). x: compute [N, d]; residual: f32 [N, d].
  void forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& residual) const;
  // grad_x: f32 [N, d], overwritten; grad_out: compute [N, d].
  void backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out, const Tensor& x) const;

 private:
  // The split and the merge are views: row-major [N, d] is [N * h, d / h].
  Tensor split(const Tensor& x) const { return x.view({x.rows() * heads_, x.cols() / heads_}); }

  int64_t heads_;
  bool inner_residual_;
  std::optional<Linear> head_, merge_;
  Moe moe_;
  std::optional<FeedForward> shared_expert_;
};

}  // namespace mhmoe::nn
