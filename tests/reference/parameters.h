// The oracle's data: plain matrices, parameters by their public names, and which parameters a configuration has.
// The oracle is plain loops, templated on the number type: with T = std::complex<double> an imaginary part of 1e-30 on
// one parameter carries that parameter's exact derivative to the loss. Branches look at real parts only.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"
#include "nn/model_config.h"

namespace mhmoe::reference {

template <class T>
struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<T> values;

  Matrix() = default;
  Matrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(static_cast<size_t>(rows * cols), T(0)) {}
  T* operator[](int64_t row) { return values.data() + row * cols; }
  const T* operator[](int64_t row) const { return values.data() + row * cols; }

  // The same row-major values in rows of another width.
  Matrix reshaped(int64_t new_cols) const {
    Matrix result = *this;
    result.rows = rows * cols / new_cols;
    result.cols = new_cols;
    return result;
  }
  void add(const Matrix& other) {
    MHMOE_CHECK(rows == other.rows && cols == other.cols, "the oracle adds matrices of different shapes");
    for (size_t i = 0; i < values.size(); ++i) values[i] += other.values[i];
  }
};

// Norm weights and biases are [1, n].
template <class T>
using Parameters = std::map<std::string, Matrix<T>>;

// Sums of floats are held in double.
template <class T>
using Sum = std::conditional_t<std::is_same_v<T, float>, double, T>;

inline double real_part(float x) {
  return x;
}
inline double real_part(double x) {
  return x;
}
inline double real_part(const std::complex<double>& x) {
  return x.real();
}

// The normal distribution's density and cumulative function; the complex one is the first-order continuation, exact
// for the tiny imaginary parts of a complex step.
template <class T>
T normal_density(T x) {
  return std::exp(-x * x / T(2)) * T(0.3989422804014327);
}
inline double normal_cdf(double x) {
  return 0.5 * std::erfc(-x * 0.7071067811865476);
}
inline float normal_cdf(float x) {
  return static_cast<float>(normal_cdf(static_cast<double>(x)));
}
inline std::complex<double> normal_cdf(const std::complex<double>& x) {
  return {normal_cdf(x.real()), x.imag() * normal_density(x.real())};
}

using Shapes = std::map<std::string, std::pair<int64_t, int64_t>>;

inline void add_linear(Shapes& shapes, const std::string& name, int64_t out, int64_t in, bool bias) {
  shapes[name + ".weight"] = {out, in};
  if (bias) shapes[name + ".bias"] = {1, out};
}

inline void add_feed_forward(Shapes& shapes, const std::string& name, const nn::ModelConfig& config, int64_t width,
                             int64_t hidden) {
  if (config.ffn.activation == ops::Activation::kSwiglu) {
    add_linear(shapes, name + ".gate", hidden, width, config.ffn.bias);
  }
  add_linear(shapes, name + ".up", hidden, width, config.ffn.bias);
  add_linear(shapes, name + ".down", width, hidden, config.ffn.bias);
}

inline void add_moe(Shapes& shapes, const std::string& name, const nn::ModelConfig& config) {
  const nn::MoeConfig& moe = config.moe;
  const int64_t d = config.hidden_size, w = d / moe.heads;
  if (moe.has_head_layer()) add_linear(shapes, name + "head", d, d, moe.projection_bias);
  if (moe.has_merge_layer()) add_linear(shapes, name + "merge", d, d, moe.projection_bias);
  add_linear(shapes, name + "router", moe.experts, w, false);
  for (int64_t e = 0; e < moe.experts; ++e) {
    add_feed_forward(shapes, name + "experts." + std::to_string(e), config, w, moe.expert_hidden_size);
  }
  if (moe.shared_expert_hidden_size > 0) {
    add_feed_forward(shapes, name + "shared_expert", config, d, moe.shared_expert_hidden_size);
  }
}

// Every parameter of the model with its shape.
inline Shapes parameter_shapes(const nn::ModelConfig& config) {
  const int64_t d = config.hidden_size;
  Shapes shapes;
  shapes["embed.weight"] = {config.vocab_size, d};
  shapes["final_norm.weight"] = {1, d};
  if (!config.tie_embeddings) shapes["lm_head.weight"] = {config.vocab_size, d};
  for (int64_t i = 0; i < config.layers; ++i) {
    const std::string layer = "layers." + std::to_string(i) + ".";
    shapes[layer + "attention_norm.weight"] = {1, d};
    shapes[layer + "ffn_norm.weight"] = {1, d};
    for (const char* part : {"q", "k", "v", "out"}) {
      add_linear(shapes, layer + "attention." + part, d, d, config.attention_bias);
    }
    if (config.is_moe_layer(i)) {
      add_moe(shapes, layer + "moe.", config);
    } else {
      add_feed_forward(shapes, layer + "ffn", config, d, config.ffn.hidden_size);
    }
  }
  return shapes;
}

// Draws in which nothing hides behind a zero or a one: also biases and norm weights vary.
inline Parameters<double> random_parameters(const Shapes& shapes, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal;
  Parameters<double> parameters;
  for (const auto& [name, shape] : shapes) {
    Matrix<double> matrix(shape.first, shape.second);
    const bool norm = name.ends_with("norm.weight"), bias = name.ends_with(".bias");
    const double scale = norm || bias ? 0.3 : 1.2 / std::sqrt(static_cast<double>(shape.second));
    for (double& value : matrix.values) value = (norm ? 1.0 : 0.0) + scale * normal(engine);
    parameters.emplace(name, std::move(matrix));
  }
  return parameters;
}

template <class T, class From>
Parameters<T> convert(const Parameters<From>& from) {
  Parameters<T> result;
  for (const auto& [name, matrix] : from) {
    Matrix<T> converted(matrix.rows, matrix.cols);
    for (size_t i = 0; i < matrix.values.size(); ++i) converted.values[i] = static_cast<T>(matrix.values[i]);
    result.emplace(name, std::move(converted));
  }
  return result;
}

template <class T>
Parameters<T> zeros_like(const Parameters<T>& parameters) {
  Parameters<T> result;
  for (const auto& [name, matrix] : parameters) result.emplace(name, Matrix<T>(matrix.rows, matrix.cols));
  return result;
}

}  // namespace mhmoe::reference
