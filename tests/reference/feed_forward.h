// The oracle's feed-forward network: dense, of an expert, or shared.
#pragma once

#include "reference/layers.h"

namespace mhmoe::reference {

template <class T>
struct FeedForwardSaved {
  Matrix<T> x, gate, up, hidden;  // gate only for SwiGLU
};

template <class T>
T sigmoid(T x) {
  return T(1) / (T(1) + std::exp(-x));
}

template <class T>
Matrix<T> feed_forward(FeedForwardSaved<T>& saved, const Parameters<T>& parameters, const std::string& name,
                       ops::Activation activation, const Matrix<T>& x) {
  saved.x = x;
  if (activation == ops::Activation::kSwiglu) saved.gate = linear(parameters, name + ".gate", x);
  saved.up = linear(parameters, name + ".up", x);
  saved.hidden = saved.up;
  for (size_t i = 0; i < saved.up.values.size(); ++i) {
    const T up = saved.up.values[i];
    T& hidden = saved.hidden.values[i];
    switch (activation) {
      case ops::Activation::kSwiglu:
        hidden = saved.gate.values[i] * sigmoid(saved.gate.values[i]) * up;
        break;
      case ops::Activation::kRelu:
        hidden = real_part(up) > 0 ? up : T(0);
        break;
      case ops::Activation::kGelu:
        hidden = up * normal_cdf(up);
        break;
    }
  }
  return linear(parameters, name + ".down", saved.hidden);
}

template <class T>
Matrix<T> feed_forward_backward(Parameters<T>& grads, const FeedForwardSaved<T>& saved, const Parameters<T>& parameters,
                                const std::string& name, ops::Activation activation, const Matrix<T>& grad_y) {
  const Matrix<T> grad_hidden = linear_backward(grads, parameters, name + ".down", saved.hidden, grad_y);
  Matrix<T> grad_up = grad_hidden, grad_gate = grad_hidden;
  for (size_t i = 0; i < grad_hidden.values.size(); ++i) {
    const T upstream = grad_hidden.values[i], up = saved.up.values[i];
    switch (activation) {
      case ops::Activation::kSwiglu: {
        const T gate = saved.gate.values[i], s = sigmoid(gate);
        grad_up.values[i] = upstream * gate * s;
        grad_gate.values[i] = upstream * up * (s + gate * s * (T(1) - s));
        break;
      }
      case ops::Activation::kRelu:
        grad_up.values[i] = real_part(up) > 0 ? upstream : T(0);
        break;
      case ops::Activation::kGelu:
        grad_up.values[i] = upstream * (normal_cdf(up) + up * normal_density(up));
        break;
    }
  }
  Matrix<T> grad_x = linear_backward(grads, parameters, name + ".up", saved.x, grad_up);
  if (activation == ops::Activation::kSwiglu) {
    grad_x.add(linear_backward(grads, parameters, name + ".gate", saved.x, grad_gate));
  }
  return grad_x;
}

}  // namespace mhmoe::reference
