// Sparse mixture of experts on rows: route, dispatch, compute, combine. With sub-tokens as rows it is the heart of
// MH-MoE (paper 1, equations 5-6; paper 2, equation 3). Experts may be shared out among ranks: see ExpertExchange.
#pragma once

#include "nn/expert_exchange.h"
#include "nn/router.h"

namespace mhmoe::nn {

class Moe {
 public:
  // moe_index: which MoE layer this is, for the statistics.
  Moe(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width,
      int64_t moe_index);

  // Of a routed row only its place and its pre-activation are kept: inputs are gathered again and activations
  // recomputed in backward, and expert outputs are not needed (the gate gradient comes from the activation).
  struct Saved {
    Routing routing;
    Tensor slot, row_of;    // i32 [S, k]
    Tensor row_assignment;  // i32 [R]
    ops::RowGroups groups;  // i32 [E] each, and the capacity
    Tensor pre;             // compute [R, pre_width]; absent where experts are shared out
    ExpertExchange::Saved exchange;
  };

  // Chooses experts and buffer rows and allocates what is kept. z: compute [S, w].
  void route(Pass& pass, Saved& saved, const Tensor& z) const;
  // After route(). out: f32 or compute [S, w], overwritten with addend + sum over kept choices of gate * expert(z).
  // z: compute [S, w]; addend: f32 or compute [S, w], optional.
  // meanwhile: other work, done while rows travel to other ranks; where they do not, before all else.
  void forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& z, const Tensor& addend,
               const comm::Meanwhile& meanwhile = {}) const;
  // grad_z: f32 [S, w], overwritten with the gradient of the routed sum and of the balance loss (+ addend: f32,
  // optional); grad_out: compute [S, w].
  void backward(Pass& pass, const Saved& saved, const Tensor& grad_z, const Tensor& grad_out, const Tensor& z,
                const Tensor& addend, const comm::Meanwhile& meanwhile = {}) const;

 private:
  void assign(Pass& pass, Saved& saved, int64_t rows, const Tensor& load) const;
  // Of the rows of x, by expert; [R, w], until the caller's scope ends.
  Tensor gathered(Pass& pass, const Saved& saved, const Tensor& x) const;
  struct RowGradients {
    Tensor rows;  // compute [R, w]
    Tensor gate;  // f32 [S, k]
  };
  void backward_here(Pass& pass, const Saved& saved, const RowGradients& grad, const Tensor& grad_out,
                     const Tensor& z) const;
  void backward_exchanged(Pass& pass, const Saved& saved, const RowGradients& grad, const Tensor& grad_out,
                          const comm::Meanwhile& meanwhile) const;
  void observe(Pass& pass, const Saved& saved, const Tensor& balance_loss) const;

  const MoeConfig& config_;
  std::string prefix_;
  int64_t moe_index_;
  Router router_;
  ExpertExchange exchange_;
};

}  // namespace mhmoe::nn
