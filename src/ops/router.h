// From router logits to experts: softmax, the k largest, their gate weights, the balance loss. (MH-MoE paper 1, eq.
// 3-11.)
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// Which choices the load share f_e of the balance loss counts: the released code's first choices, or all k of paper 1.
enum class BalanceCounts : uint8_t { kFirstChoice, kAllChoices };

// p = softmax(logits), row by row; the k largest in descending order (of equals the lower index first).
// gate_weight = p of the chosen, divided by their sum when `normalize`.
// share[e] = f_e, the share of counted choices that name e (sums to 1); balance_loss[0] = E * sum_e f_e * mean_s p[s,
// e]. logits, probabilities: f32 [S, E], may be the same tensor; expert_index: i32 [S, k]; gate_weight: f32 [S, k];
// share: f32 [E]; balance_loss: f32 [1]. All outputs overwritten. With S = 0: share and loss are zero.
struct RouterForward {
  Tensor probabilities, expert_index, gate_weight, share, balance_loss, logits;
  bool normalize;
  BalanceCounts counts;
};
// grad_logits of sum(grad_gate * gate_weight) + balance_scale * balance_loss, with expert_index and share held fixed.
// grad_logits: f32 [S, E], overwritten, may be `probabilities` itself; grad_gate: f32 [S, k]; rest as in forward.
struct RouterBackward {
  Tensor grad_logits, grad_gate, probabilities, expert_index, share;
  bool normalize;
  float balance_scale;
};

void router_forward(Context& ctx, const RouterForward& args);
void router_backward(Context& ctx, const RouterBackward& args);

}  // namespace mhmoe::ops
