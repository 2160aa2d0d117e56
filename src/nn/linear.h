// y = x W^T + b, the building block of every layer. W may be several named matrices packed as one.
#pragma once

#include <string>
#include <vector>

#include "nn/pass.h"

namespace mhmoe::nn {

// One named matrix of a packed linear layer: PREFIX.weight [out, in] and, with biases, PREFIX.bias [out].
struct LinearPart {
  std::string prefix;
  int64_t out;
};

class Linear {
 public:
  // PyTorch's default initialisation for every part.
  Linear(ParameterStore& parameters, const std::vector<LinearPart>& parts, int64_t in, bool bias);
  Linear(ParameterStore& parameters, const std::string& prefix, int64_t out, int64_t in, bool bias, Init weight_init,
         Init bias_init);

  int64_t out_size() const { return weight_->dims[0]; }
  int64_t in_size() const { return weight_->dims[1]; }

  // out: compute dtype or f32 [N, out], overwritten with x W^T + b (+ addend, f32, may be out itself); x: compute [N,
  // in].
  void forward(Pass& pass, const Tensor& out, const Tensor& x, const Tensor& addend = {}) const;
  // Accumulates the gradients of weight and bias. grad_out: compute [N, out].
  void backward_parameters(Pass& pass, const Tensor& grad_out, const Tensor& x) const;
  // grad_x: compute dtype or f32 [N, in], overwritten with grad_out W (+ addend, as in forward).
  void backward_input(Pass& pass, const Tensor& grad_x, const Tensor& grad_out, const Tensor& addend = {}) const;

 private:
  const Parameter* weight_;
  const Parameter* bias_ = nullptr;
};

// `x` as `dtype`: itself, or a copy in the step arena.
Tensor converted(Pass& pass, const Tensor& x, DType dtype);

}  // namespace mhmoe::nn
