// The oracle's linear layer, root-mean-square norm and softmax. Gradients of parameters accumulate.
#pragma once

#include "reference/parameters.h"

namespace mhmoe::reference {

// y = x weightᵀ + bias; the bias is there if the parameters have one.
template <class T>
Matrix<T> linear(const Parameters<T>& parameters, const std::string& name, const Matrix<T>& x) {
  const Matrix<T>& weight = parameters.at(name + ".weight");
  const auto bias = parameters.find(name + ".bias");
  Matrix<T> y(x.rows, weight.rows);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      Sum<T> sum = 0;
      for (int64_t i = 0; i < weight.cols; ++i) sum += Sum<T>(x[r][i]) * Sum<T>(weight[o][i]);
      if (bias != parameters.end()) sum += Sum<T>(bias->second[0][o]);
      y[r][o] = T(sum);
    }
  }
  return y;
}

template <class T>
Matrix<T> linear_backward(Parameters<T>& grads, const Parameters<T>& parameters, const std::string& name,
                          const Matrix<T>& x, const Matrix<T>& grad_y) {
  const Matrix<T>& weight = parameters.at(name + ".weight");
  Matrix<T>& grad_weight = grads.at(name + ".weight");
  const auto grad_bias = grads.find(name + ".bias");
  Matrix<T> grad_x(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      if (grad_bias != grads.end()) grad_bias->second[0][o] += grad_y[r][o];
      for (int64_t i = 0; i < weight.cols; ++i) {
        grad_weight[o][i] += grad_y[r][o] * x[r][i];
        grad_x[r][i] += grad_y[r][o] * weight[o][i];
      }
    }
  }
  return grad_x;
}

template <class T>
T inverse_rms(const T* x, int64_t cols, double eps) {
  Sum<T> squares = 0;
  for (int64_t c = 0; c < cols; ++c) squares += Sum<T>(x[c]) * Sum<T>(x[c]);
  return T(Sum<T>(1) / std::sqrt(squares / Sum<T>(static_cast<double>(cols)) + Sum<T>(eps)));
}

// y = x / sqrt(mean(x²) + eps) * weight
template <class T>
Matrix<T> rms_norm(const Parameters<T>& parameters, const std::string& name, const Matrix<T>& x, double eps) {
  const T* weight = parameters.at(name + ".weight")[0];
  Matrix<T> y(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const T scale = inverse_rms(x[r], x.cols, eps);
    for (int64_t c = 0; c < x.cols; ++c) y[r][c] = x[r][c] * scale * weight[c];
  }
  return y;
}

template <class T>
Matrix<T> rms_norm_backward(Parameters<T>& grads, const Parameters<T>& parameters, const std::string& name,
                            const Matrix<T>& x, const Matrix<T>& grad_y, double eps) {
  const T* weight = parameters.at(name + ".weight")[0];
  T* grad_weight = grads.at(name + ".weight")[0];
  Matrix<T> grad_x(x.rows, x.cols);
  for (int64_t r = 0; r < x.rows; ++r) {
    const T scale = inverse_rms(x[r], x.cols, eps);
    Sum<T> along_x = 0;
    for (int64_t c = 0; c < x.cols; ++c) {
      grad_weight[c] += grad_y[r][c] * x[r][c] * scale;
      along_x += Sum<T>(grad_y[r][c] * weight[c] * x[r][c]);
    }
    const T projection = T(along_x / Sum<T>(static_cast<double>(x.cols))) * scale * scale * scale;
    for (int64_t c = 0; c < x.cols; ++c) grad_x[r][c] = grad_y[r][c] * weight[c] * scale - x[r][c] * projection;
  }
  return grad_x;
}

// In place over the first `count` values.
template <class T>
void softmax(T* values, int64_t count) {
  double largest = real_part(values[0]);
  for (int64_t i = 1; i < count; ++i) largest = std::max(largest, real_part(values[i]));
  Sum<T> total = 0;
  for (int64_t i = 0; i < count; ++i) {
    values[i] = std::exp(values[i] - T(largest));
    total += Sum<T>(values[i]);
  }
  for (int64_t i = 0; i < count; ++i) values[i] = T(Sum<T>(values[i]) / total);
}

// The gradient of the softmax's input, in place of the gradient of its output.
template <class T>
void softmax_backward(T* grad, const T* probability, int64_t count) {
  Sum<T> mean = 0;
  for (int64_t i = 0; i < count; ++i) mean += Sum<T>(grad[i]) * Sum<T>(probability[i]);
  for (int64_t i = 0; i < count; ++i) grad[i] = probability[i] * (grad[i] - T(mean));
}

}  // namespace mhmoe::reference
