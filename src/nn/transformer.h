// The stack of blocks and the final norm. Input embeddings and loss head belong to a task.
#pragma once

#include <vector>

#include "nn/block.h"

namespace mhmoe::nn {

class Transformer {
 public:
  // recompute_blocks: keep only each block's input and run its forward again in backward; the same bits.
  Transformer(const ModelConfig& config, ParameterStore& parameters, bool recompute_blocks = false);

  // Kept between a forward and its backward; reused from pass to pass. Tensors live in the step arena.
  struct Saved {
    std::vector<Block::Saved> blocks;
    std::vector<Tensor> inputs;  // f32 [N, d]: the residual stream before each block, and after the last
    Tensor inv_rms;
  };

  // out: compute dtype [N, d], the normed final hidden state. input: f32 [N, d], must stay until backward.
  void forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& input) const;
  // grad_input: f32 [N, d], overwritten; grad_out: compute dtype [N, d].
  void backward(Pass& pass, Saved& saved, const Tensor& grad_input, const Tensor& grad_out) const;

  int64_t moe_layers() const { return moe_layers_; }

 private:
  const ModelConfig& config_;
  bool recompute_blocks_;
  int64_t moe_layers_ = 0;
  std::vector<Block> blocks_;
  const Parameter* norm_ = nullptr;
};

}  // namespace mhmoe::nn
