// The dense feed-forward network: down(act(up(x))), SwiGLU, ReLU or GELU. Also the shared expert of MoE layers.
#pragma once

#include "nn/linear.h"
#include "nn/model_config.h"

namespace mhmoe::nn {

// The named parts of the first product: gate and up for SwiGLU, else up alone.
std::vector<LinearPart> input_projections(ops::Activation activation, const std::string& prefix, int64_t hidden);

class FeedForward {
 public:
  FeedForward(const FeedForwardConfig& config, ParameterStore& parameters, const std::string& prefix,
              int64_t model_size, int64_t hidden_size);

  struct Saved {
    Tensor pre;  // compute [N, pre_activation_width]; backward overwrites it
  };

  // out: f32 [N, d], overwritten with addend + ffn(x); addend: f32 [N, d], may be out itself. x: compute [N, d].
  void forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& x, const Tensor& addend) const;
  // Its two halves, for what a rank does while it waits for others: the pre-activation, kept, and `activated`, compute
  // [N, hidden_size]; then `out` from that.
  void forward_hidden(Pass& pass, const Saved& saved, const Tensor& activated, const Tensor& x) const;
  void forward_out(Pass& pass, const Tensor& out, const Tensor& activated, const Tensor& addend) const;
  Tensor allocate_kept(Pass& pass, int64_t rows) const;  // Saved::pre
  Tensor allocate_activated(Pass& pass, int64_t rows) const;
  // grad_x: overwritten with the gradient (+ addend: f32, then grad_x is f32 too and may be the same);
  // grad_out: compute [N, d].
  void backward(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& grad_out, const Tensor& x,
                const Tensor& addend = {}) const;
  // Its two halves: all gradients of parameters; then that of the input.
  void backward_parameters(Pass& pass, const Saved& saved, const Tensor& grad_out, const Tensor& x) const;
  void backward_input(Pass& pass, const Saved& saved, const Tensor& grad_x, const Tensor& addend) const;

 private:
  ops::Activation activation_;
  int64_t hidden_size_;
  std::string prefix_;
  Linear up_;  // gate and up in one product
  Linear down_;
};

}  // namespace mhmoe::nn
