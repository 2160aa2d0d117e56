// The oracle's causal self-attention with rotary positions (half-split pairs).
#pragma once

#include "reference/layers.h"

namespace mhmoe::reference {

template <class T>
struct AttentionSaved {
  Matrix<T> x, q, k, v;                  // [tokens, d]; q and k rotated
  std::vector<Matrix<T>> probabilities;  // [length, length] of every (sequence, head)
  Matrix<T> context;                     // [tokens, d]
};

// Turns the pairs (i, i + size/2) of every head by position * base^(-2i/size); direction -1 turns back.
template <class T>
void rotate(Matrix<T>& x, const nn::ModelConfig& config, int64_t length, double direction) {
  const int64_t size = config.head_size(), half = size / 2;
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t head = 0; head < config.attention_heads; ++head) {
      for (int64_t i = 0; i < half; ++i) {
        const double frequency = std::pow(config.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(size));
        const double angle = static_cast<double>(r % length) * frequency;
        const T cosine = T(std::cos(angle)), sine = T(direction * std::sin(angle));
        T& a = x[r][head * size + i];
        T& b = x[r][head * size + i + half];
        const T turned = a * cosine - b * sine;
        b = b * cosine + a * sine;
        a = turned;
      }
    }
  }
}

template <class T>
Matrix<T> attention(AttentionSaved<T>& saved, const Parameters<T>& parameters, const std::string& name,
                    const nn::ModelConfig& config, const Matrix<T>& x, int64_t length) {
  const int64_t size = config.head_size(), heads = config.attention_heads;
  const T scale = T(1 / std::sqrt(static_cast<double>(size)));
  saved.x = x;
  saved.q = linear(parameters, name + ".q", x);
  saved.k = linear(parameters, name + ".k", x);
  saved.v = linear(parameters, name + ".v", x);
  rotate(saved.q, config, length, 1);
  rotate(saved.k, config, length, 1);
  saved.context = Matrix<T>(x.rows, x.cols);
  for (int64_t first = 0; first < x.rows; first += length) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t column = head * size;
      Matrix<T> p(length, length);
      for (int64_t t = 0; t < length; ++t) {
        for (int64_t s = 0; s <= t; ++s) {
          Sum<T> score = 0;
          for (int64_t c = 0; c < size; ++c) {
            score += Sum<T>(saved.q[first + t][column + c]) * Sum<T>(saved.k[first + s][column + c]);
          }
          p[t][s] = T(score) * scale;
        }
        softmax(p[t], t + 1);
        for (int64_t c = 0; c < size; ++c) {
          Sum<T> value = 0;
          for (int64_t s = 0; s <= t; ++s) value += Sum<T>(p[t][s]) * Sum<T>(saved.v[first + s][column + c]);
          saved.context[first + t][column + c] = T(value);
        }
      }
      saved.probabilities.push_back(std::move(p));
    }
  }
  return linear(parameters, name + ".out", saved.context);
}

template <class T>
Matrix<T> attention_backward(Parameters<T>& grads, const AttentionSaved<T>& saved, const Parameters<T>& parameters,
                             const std::string& name, const nn::ModelConfig& config, const Matrix<T>& grad_y,
                             int64_t length) {
  const int64_t size = config.head_size(), heads = config.attention_heads, d = saved.x.cols;
  const T scale = T(1 / std::sqrt(static_cast<double>(size)));
  const Matrix<T> grad_context = linear_backward(grads, parameters, name + ".out", saved.context, grad_y);
  Matrix<T> grad_q(saved.x.rows, d), grad_k(saved.x.rows, d), grad_v(saved.x.rows, d);
  for (int64_t first = 0; first < saved.x.rows; first += length) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t column = head * size;
      const Matrix<T>& p = saved.probabilities[static_cast<size_t>(first / length * heads + head)];
      for (int64_t t = 0; t < length; ++t) {
        std::vector<T> grad_scores(static_cast<size_t>(t + 1), T(0));
        for (int64_t s = 0; s <= t; ++s) {
          for (int64_t c = 0; c < size; ++c) {
            const T upstream = grad_context[first + t][column + c];
            grad_scores[static_cast<size_t>(s)] += upstream * saved.v[first + s][column + c];
            grad_v[first + s][column + c] += upstream * p[t][s];
          }
        }
        softmax_backward(grad_scores.data(), p[t], t + 1);
        for (int64_t s = 0; s <= t; ++s) {
          const T grad_score = grad_scores[static_cast<size_t>(s)] * scale;
          for (int64_t c = 0; c < size; ++c) {
            grad_q[first + t][column + c] += grad_score * saved.k[first + s][column + c];
            grad_k[first + s][column + c] += grad_score * saved.q[first + t][column + c];
          }
        }
      }
    }
  }
  rotate(grad_q, config, length, -1);
  rotate(grad_k, config, length, -1);
  Matrix<T> grad_x = linear_backward(grads, parameters, name + ".q", saved.x, grad_q);
  grad_x.add(linear_backward(grads, parameters, name + ".k", saved.x, grad_k));
  grad_x.add(linear_backward(grads, parameters, name + ".v", saved.x, grad_v));
  return grad_x;
}

}  // namespace mhmoe::reference
