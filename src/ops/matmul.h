// Dense matrix products with the epilogues that linear layers need.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// out[m, n] = op(a)[m, k] op(b)[k, n] (+ bias[n] to every row) (+ addend[m, n]).
// a, b: equal dtype, f32 or bf16; transpose_x: the matrix is stored as the transpose of op(x). Sums are f32.
// out: f32, or bf16 when the inputs are; overwritten. bias: f32, optional. addend: f32 and out f32, optional; it may
// be `out` itself, which accumulates. A linear layer y = x W^T with W [out, in] is {y, x, W, .transpose_b = true}.
struct Matmul {
  Tensor out, a, b;
  bool transpose_a = false;
  bool transpose_b = false;
  Tensor bias = {};
  Tensor addend = {};
};
// grad_bias[n] += sum over rows of grad_out[., n]. grad_bias: f32 [n]; grad_out: f32 or bf16 [m, n].
struct BiasBackward {
  Tensor grad_bias, grad_out;
};

void matmul(Context& ctx, const Matmul& args);
void bias_backward(Context& ctx, const BiasBackward& args);

}  // namespace mhmoe::ops
