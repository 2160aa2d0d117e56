// The oracle's router: softmax, top-k, gate weights, queues, balance loss.
#pragma once

#include "reference/layers.h"

namespace mhmoe::reference {

// The discrete choices of one MoE layer. Given to a later run they hold its routing fixed, so that a derivative is
// taken within one piece of the piecewise smooth loss.
struct Routing {
  std::vector<int64_t> expert_index, slot;  // [rows, k]
  int64_t capacity = 0;                     // 0: dropless

  bool kept(size_t assignment) const { return capacity == 0 || slot[assignment] < capacity; }
};

template <class T>
struct RouterSaved {
  Matrix<T> x, probabilities;  // [rows, w], [rows, E]
  Matrix<T> gate_weight;       // [rows, k]
  std::vector<double> share;   // [E]
  T balance_loss = T(0);
  Routing routing;
};

// k * ceil(factor * rows / experts), of a factor meant as the decimal number it was written as.
inline int64_t capacity_of(const nn::MoeConfig& moe, int64_t rows) {
  if (!moe.capacity_factor) return 0;
  const double wanted = *moe.capacity_factor * static_cast<double>(rows) / static_cast<double>(moe.experts);
  return moe.top_k * static_cast<int64_t>(std::ceil(wanted - 1e-9));
}

template <class T>
Routing choose(const Matrix<T>& probabilities, const nn::MoeConfig& moe) {
  const int64_t rows = probabilities.rows, k = moe.top_k;
  Routing routing;
  routing.capacity = capacity_of(moe, rows);
  routing.expert_index.assign(static_cast<size_t>(rows * k), -1);
  routing.slot.assign(static_cast<size_t>(rows * k), -1);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<bool> taken(static_cast<size_t>(moe.experts), false);
    for (int64_t j = 0; j < k; ++j) {
      int64_t best = -1;
      for (int64_t e = 0; e < moe.experts; ++e) {
        if (taken[static_cast<size_t>(e)]) continue;
        if (best < 0 || real_part(probabilities[r][e]) > real_part(probabilities[r][best])) best = e;
      }
      taken[static_cast<size_t>(best)] = true;
      routing.expert_index[static_cast<size_t>(r * k + j)] = best;
    }
  }
  // The queues: all first choices in row order, then all second choices, and so on.
  std::vector<int64_t> length(static_cast<size_t>(moe.experts), 0);
  for (int64_t j = 0; j < k; ++j) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto a = static_cast<size_t>(r * k + j);
      routing.slot[a] = length[static_cast<size_t>(routing.expert_index[a])]++;
    }
  }
  return routing;
}

template <class T>
void route(RouterSaved<T>& saved, const Parameters<T>& parameters, const std::string& name, const nn::MoeConfig& moe,
           const Matrix<T>& x, const Routing* fixed) {
  const int64_t rows = x.rows, k = moe.top_k, experts = moe.experts;
  saved.x = x;
  saved.probabilities = linear(parameters, name, x);
  for (int64_t r = 0; r < rows; ++r) softmax(saved.probabilities[r], experts);
  saved.routing = fixed ? *fixed : choose(saved.probabilities, moe);

  saved.gate_weight = Matrix<T>(rows, k);
  saved.share.assign(static_cast<size_t>(experts), 0);
  const int64_t counted = moe.balance_loss_counts == ops::BalanceCounts::kAllChoices ? k : 1;
  for (int64_t r = 0; r < rows; ++r) {
    T total = T(0);
    for (int64_t j = 0; j < k; ++j) {
      const int64_t e = saved.routing.expert_index[static_cast<size_t>(r * k + j)];
      saved.gate_weight[r][j] = saved.probabilities[r][e];
      total += saved.probabilities[r][e];
      if (j < counted) saved.share[static_cast<size_t>(e)] += 1.0 / static_cast<double>(rows * counted);
    }
    for (int64_t j = 0; j < k && moe.router.normalize_top_k; ++j) saved.gate_weight[r][j] /= total;
  }
  Sum<T> loss = 0;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t e = 0; e < experts; ++e) {
      loss += Sum<T>(saved.probabilities[r][e]) * Sum<T>(saved.share[static_cast<size_t>(e)]);
    }
  }
  saved.balance_loss = rows > 0 ? T(loss * Sum<T>(static_cast<double>(experts) / static_cast<double>(rows))) : T(0);
}

// Of sum(grad_gate * gate_weight) + balance_scale * balance_loss, with the routing held fixed. Returns the gradient of
// x.
template <class T>
Matrix<T> route_backward(Parameters<T>& grads, const RouterSaved<T>& saved, const Parameters<T>& parameters,
                         const std::string& name, const nn::MoeConfig& moe, const Matrix<T>& grad_gate,
                         double balance_scale) {
  const int64_t rows = saved.x.rows, k = moe.top_k, experts = moe.experts;
  Matrix<T> grad(rows, experts);  // of the probabilities, then of the logits
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t e = 0; e < experts; ++e) {
      grad[r][e] = T(balance_scale * static_cast<double>(experts) * saved.share[static_cast<size_t>(e)] /
                     static_cast<double>(rows));
    }
    T total = T(1), weighted = T(0);
    if (moe.router.normalize_top_k) {
      total = T(0);
      for (int64_t j = 0; j < k; ++j) {
        total += saved.probabilities[r][saved.routing.expert_index[static_cast<size_t>(r * k + j)]];
        weighted += grad_gate[r][j] * saved.gate_weight[r][j];
      }
    }
    for (int64_t j = 0; j < k; ++j) {
      const int64_t e = saved.routing.expert_index[static_cast<size_t>(r * k + j)];
      grad[r][e] += (grad_gate[r][j] - weighted) / total;
    }
    softmax_backward(grad[r], saved.probabilities[r], experts);
  }
  return linear_backward(grads, parameters, name, saved.x, grad);
}

}  // namespace mhmoe::reference
