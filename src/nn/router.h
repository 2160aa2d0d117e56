// From sub-tokens to experts: the linear router, softmax(z . e), in f32 throughout.
#pragma once

#include "nn/model_config.h"
#include "nn/pass.h"

namespace mhmoe::nn {

// Which experts each row goes to and with what weight; S rows, E experts, k choices.
struct Routing {
  Tensor probabilities;  // f32 [S, E]; the router's backward overwrites it
  Tensor expert_index;   // i32 [S, k]
  Tensor gate_weight;    // f32 [S, k]
  Tensor share;          // f32 [E], the load share of the balance loss
};

class Router {
 public:
  Router(const MoeConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width);

  // z: compute [S, w]; balance_loss: f32 [1], overwritten.
  void forward(Pass& pass, Routing& routing, const Tensor& balance_loss, const Tensor& z) const;
  // grad_z: f32 [S, w], overwritten (+ addend: f32, optional); grad_gate: f32 [S, k].
  void backward(Pass& pass, const Routing& routing, const Tensor& grad_z, const Tensor& grad_gate, const Tensor& z,
                const Tensor& addend) const;

 private:
  const MoeConfig& config_;
  const Parameter& weight_;  // [E, w]
};

}  // namespace mhmoe::nn
