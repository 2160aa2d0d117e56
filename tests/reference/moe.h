// The oracle's (multi-head) mixture-of-experts layer. `name` is the prefix of its parameters, with its final dot.
#pragma once

#include "reference/feed_forward.h"
#include "reference/router.h"

namespace mhmoe::reference {

template <class T>
struct MoeSaved {
  Matrix<T> x;                               // [tokens, d]
  RouterSaved<T> router;                     // on rows = tokens * heads sub-tokens
  std::vector<FeedForwardSaved<T>> experts;  // of every assignment; empty where it was dropped
  std::vector<Matrix<T>> expert_outputs;     // [1, w] of every assignment, before its gate weight
  Matrix<T> routed;                          // [tokens, d], what the merge layer reads
  FeedForwardSaved<T> shared;
};

inline std::string expert_name(const std::string& name, int64_t expert) {
  return name + "experts." + std::to_string(expert);
}

template <class T>
Matrix<T> row_of(const Matrix<T>& x, int64_t row) {
  Matrix<T> result(1, x.cols);
  for (int64_t c = 0; c < x.cols; ++c) result[0][c] = x[row][c];
  return result;
}

template <class T>
Matrix<T> moe(MoeSaved<T>& saved, const Parameters<T>& parameters, const std::string& name,
              const nn::ModelConfig& config, const Matrix<T>& x, const Routing* fixed_routing = nullptr) {
  const nn::MoeConfig& moe = config.moe;
  const int64_t k = moe.top_k, width = config.sub_token_size();
  saved.x = x;
  const Matrix<T> z = (moe.has_head_layer() ? linear(parameters, name + "head", x) : x).reshaped(width);
  route(saved.router, parameters, name + "router", moe, z, fixed_routing);
  const Routing& routing = saved.router.routing;

  Matrix<T> out(z.rows, width);
  saved.experts.assign(static_cast<size_t>(z.rows * k), {});
  saved.expert_outputs.assign(static_cast<size_t>(z.rows * k), {});
  for (int64_t r = 0; r < z.rows; ++r) {
    for (int64_t j = 0; j < k; ++j) {
      const auto a = static_cast<size_t>(r * k + j);
      if (!routing.kept(a)) continue;
      const std::string expert = expert_name(name, routing.expert_index[a]);
      saved.expert_outputs[a] = feed_forward(saved.experts[a], parameters, expert, config.ffn.activation, row_of(z, r));
      for (int64_t c = 0; c < width; ++c) out[r][c] += saved.router.gate_weight[r][j] * saved.expert_outputs[a][0][c];
    }
  }
  if (moe.residual == nn::MoeResidual::kInner) out.add(z);
  saved.routed = out.reshaped(config.hidden_size);
  Matrix<T> y = moe.has_merge_layer() ? linear(parameters, name + "merge", saved.routed) : saved.routed;
  if (moe.shared_expert_hidden_size > 0) {
    y.add(feed_forward(saved.shared, parameters, name + "shared_expert", config.ffn.activation, x));
  }
  return y;
}

// Of sum(grad_y * y) + balance_scale * balance_loss. Returns the gradient of x.
template <class T>
Matrix<T> moe_backward(Parameters<T>& grads, const MoeSaved<T>& saved, const Parameters<T>& parameters,
                       const std::string& name, const nn::ModelConfig& config, const Matrix<T>& grad_y,
                       double balance_scale) {
  const nn::MoeConfig& moe = config.moe;
  const int64_t k = moe.top_k, width = config.sub_token_size();
  const Routing& routing = saved.router.routing;
  const Matrix<T> grad_out =
      (moe.has_merge_layer() ? linear_backward(grads, parameters, name + "merge", saved.routed, grad_y) : grad_y)
          .reshaped(width);
  Matrix<T> grad_z(grad_out.rows, width), grad_gate(grad_out.rows, k);
  if (moe.residual == nn::MoeResidual::kInner) grad_z.add(grad_out);
  for (int64_t r = 0; r < grad_out.rows; ++r) {
    for (int64_t j = 0; j < k; ++j) {
      const auto a = static_cast<size_t>(r * k + j);
      if (!routing.kept(a)) continue;
      Matrix<T> grad_expert(1, width);
      for (int64_t c = 0; c < width; ++c) {
        grad_gate[r][j] += grad_out[r][c] * saved.expert_outputs[a][0][c];
        grad_expert[0][c] = grad_out[r][c] * saved.router.gate_weight[r][j];
      }
      const Matrix<T> grad_row =
          feed_forward_backward(grads, saved.experts[a], parameters, expert_name(name, routing.expert_index[a]),
                                config.ffn.activation, grad_expert);
      for (int64_t c = 0; c < width; ++c) grad_z[r][c] += grad_row[0][c];
    }
  }
  grad_z.add(route_backward(grads, saved.router, parameters, name + "router", moe, grad_gate, balance_scale));
  Matrix<T> grad_x = grad_z.reshaped(config.hidden_size);
  if (moe.has_head_layer()) grad_x = linear_backward(grads, parameters, name + "head", saved.x, grad_x);
  if (moe.shared_expert_hidden_size > 0) {
    grad_x.add(
        feed_forward_backward(grads, saved.shared, parameters, name + "shared_expert", config.ffn.activation, grad_y));
  }
  return grad_x;
}

}  // namespace mhmoe::reference
