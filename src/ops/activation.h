// The non-linearity between the two products of a feed-forward network, dense or of an expert.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// kSwiglu: pre = [gate | up] of width 2m, out = silu(gate) * up. kRelu, kGelu (exact, erf): pre has width m.
enum class Activation : uint8_t { kSwiglu, kRelu, kGelu };

constexpr int64_t pre_activation_width(Activation kind, int64_t hidden) {
  return kind == Activation::kSwiglu ? 2 * hidden : hidden;
}

// out: [R, m], overwritten; pre: [R, pre_activation_width]; both f32 or both bf16.
struct ActivationForward {
  Tensor out, pre;
  Activation kind;
};

// grad_pre = row_scale * grad_out * d out / d pre, where row r's scale is gate[g(r)] (1 without gates).
// grad_out: [R, m], dtype of pre; grad_pre: like pre, overwritten, may be `pre` itself.
// scaled_out: optional, like grad_out, overwritten with row_scale * out recomputed: the left operand of the
//   down-projection's weight gradient; may be grad_out itself.
// Routed rows (gate and grad_gate or neither): gate, grad_gate: f32. grad_gate[g(r)] = <out[r], grad_out[r]>: the
//   gradient of a gate weight when grad_out is the unscaled upstream gradient times the down-projection, so that expert
//   outputs need not be kept (after arXiv 2512.14080).
// row_assignment: i32 [R], optional. With it gate and grad_gate have one element an assignment and g(r) is
//   row_assignment[r]; elements of grad_gate that no row names are left alone: the caller zeroes them. Rows with
//   row_assignment -1 are empty: scale 0, and grad_pre and scaled_out are zero there. Without it they have one element
//   a row, and g(r) is r.
struct ActivationBackward {
  Tensor grad_pre, grad_out, pre;
  Activation kind;
  Tensor scaled_out = {};
  Tensor gate = {};
  Tensor grad_gate = {};
  Tensor row_assignment = {};
};

void activation_forward(Context& ctx, const ActivationForward& args);
void activation_backward(Context& ctx, const ActivationBackward& args);

}  // namespace mhmoe::ops
