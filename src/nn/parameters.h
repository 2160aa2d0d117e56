// The list of a model's parameters: every one named once; initialised, updated, saved and loaded by walking it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "device/context.h"

namespace mhmoe::nn {

struct Init {
  enum class Kind : uint8_t { kZeros, kOnes, kNormal, kUniform };
  Kind kind = Kind::kZeros;
  double scale = 0;  // standard deviation, or the bound of uniform(-scale, scale)

  static Init zeros() { return {Kind::kZeros, 0}; }
  static Init ones() { return {Kind::kOnes, 0}; }
  static Init normal(double deviation) { return {Kind::kNormal, deviation}; }
  static Init uniform(double bound) { return {Kind::kUniform, bound}; }
  // PyTorch's default for nn.Linear, weight and bias (kaiming_uniform with a = sqrt(5)): uniform(+-1/sqrt(fan_in)).
  static Init linear_default(int64_t fan_in);
  // xavier_uniform: uniform(+-gain sqrt(6 / (fan_in + fan_out))).
  static Init xavier_uniform(int64_t fan_in, int64_t fan_out, double gain);
};

enum class ParameterKind : uint8_t {
  kMatrix,  // an operand of matrix products: has a copy in the compute dtype
  kRouter,  // a matrix that is always used in f32
  kVector,  // norm weights and biases, always used in f32
};

// What the outside knows by name (files, logs): a contiguous part of a stored parameter. Matrices are [out, in].
struct ParameterPart {
  std::string name;
  std::vector<int64_t> dims;
  Init init;
  int64_t offset = 0;  // elements from the start of the parameter

  int64_t count() const;
};

struct Parameter {
  ParameterKind kind;
  std::vector<int64_t> dims;
  std::vector<ParameterPart> parts;  // in storage order, without gaps
  int64_t offset = 0;                // elements from the start of the store's flat vectors
  Tensor value;                      // what forward and backward read: compute dtype for kMatrix, else `master`
  Tensor master;                     // f32, what the optimizer updates
  Tensor gradient;                   // f32

  int64_t count() const;
};

// Parameters lie one behind another in flat vectors (master, gradient, compute copy) with equal offsets, so that the
// optimizer and reductions treat them as one.
class ParameterStore {
 public:
  // A parameter of one part. The reference stays valid.
  Parameter& add(ParameterKind kind, std::string name, std::vector<int64_t> dims, Init init);
  // Several named parts stored as one tensor of `dims`; their counts add up to its count. Offsets are filled in.
  Parameter& add_packed(ParameterKind kind, std::vector<int64_t> dims, std::vector<ParameterPart> parts);

  // Allocates the flat vectors in the state arena and points the parameters at them; gradients are zeroed.
  // compute: f32 (value is master) or bf16. gradients: false for evaluation.
  void allocate(Context& ctx, DType compute, bool gradients = true);
  // Fills every part from Philox(seed, part name).
  void initialize(Context& ctx, uint64_t seed);
  // After masters changed on the host's side: refreshes the compute copies.
  void refresh_copies(Context& ctx);

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  // Every part of every parameter, in order.
  void visit(const std::function<void(const Parameter&, const ParameterPart&)>& f) const;
  // Elements of all parts; the flat vectors are longer by alignment.
  int64_t parameter_count() const;

  DType compute_dtype() const { return compute_; }
  const Tensor& master() const { return master_; }
  const Tensor& gradient() const { return gradient_; }
  const Tensor& copy() const { return copy_; }  // absent in f32

  // The part of a tensor laid out like the parameter (master, gradient).
  static Tensor part_of(const Tensor& tensor, const ParameterPart& part);

 private:
  std::deque<Parameter> parameters_;
  int64_t flat_count_ = 0;
  DType compute_ = DType::kF32;
  Tensor master_, gradient_, copy_;
};

}  // namespace mhmoe::nn
