// Products of the experts: each expert's rows with that expert's matrix.
#pragma once

#include "ops/activation.h"

namespace mhmoe::ops {

// Expert e has the rows [begin[e], begin[e] + rows[e]) of row buffers; groups do not overlap. begin, rows: i32 [E].
// capacity: known before any row is routed: where it is not 0, begin[e] = e * capacity, rows[e] <= capacity, and row
// buffers have E * capacity rows. 0 is dropless: a device learns its rows from begin and rows alone.
//
// Rows of no expert are neither read nor written without a capacity. With one they may be taken along: in what is read
// they must hold finite numbers, which in one of the two operands of a weight gradient are zeros; in what is written
// they then become finite numbers too.
struct RowGroups {
  Tensor begin, rows;
  int64_t capacity = 0;
};

// For the rows r of expert e: out[r] = a[r] weight[e]^T (+ bias[e]), or a[r] weight[e] when `transpose_weight` is
// false. weight: [E, n, k]; transpose_weight: a [R, k], out [R, n] (forward); else a [R, n], out [R, k] (input
// gradient). Equal dtypes of a and weight, f32 or bf16; out f32 or that dtype; bias: f32 [E, n], optional.
// activated: optional, forward only, dtype of out: overwritten with what activation_forward makes of `out`; in rows of
// no expert with anything where there is no capacity.
struct GroupedMatmul {
  Tensor out, a, weight;
  RowGroups groups;
  bool transpose_weight;
  Tensor bias = {};
  Tensor activated = {};
  Activation activation = Activation::kSwiglu;
};

// grad_weight[e] += grad_out[rows of e]^T x[rows of e]. grad_weight: f32 [E, n, k]; grad_out [R, n], x [R, k]: equal
// dtype.
struct GroupedWeightGrad {
  Tensor grad_weight, grad_out, x;
  RowGroups groups;
};

// grad_bias[e] += sum over the rows r of e of scale_r * grad_out[r], where scale_r = gate[g(r)] (1 without gates); with
// gates also grad_gate[g(r)] += <bias[e], grad_out[r]>. grad_bias, bias: f32 [E, n]; gate, grad_gate, row_assignment
// and g as in ActivationBackward.
struct GroupedBiasBackward {
  Tensor grad_bias, grad_out;
  RowGroups groups;
  Tensor bias = {};
  Tensor gate = {};
  Tensor grad_gate = {};
  Tensor row_assignment = {};
};

void grouped_matmul(Context& ctx, const GroupedMatmul& args);
void grouped_weight_grad(Context& ctx, const GroupedWeightGrad& args);
void grouped_bias_backward(Context& ctx, const GroupedBiasBackward& args);

}  // namespace mhmoe::ops
