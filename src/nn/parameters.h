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
  int64_t offset = 0;         // elements from the start of the parameter
  int64_t global_offset = 0;  // elements of all parts before it, of the whole model

  int64_t count() const;
};

// On which ranks a parameter lies: on all, or on those that hold the same experts.
enum class Placement : uint8_t { kEverywhere, kWithExperts };

struct Parameter {
  ParameterKind kind;
  Placement placement;
  std::vector<int64_t> dims;
  std::vector<ParameterPart> parts;  // those of this rank, in storage order, without gaps
  int64_t order = 0;                 // how many parameters were added before it; backward passes go down
  int64_t offset = 0;                // elements from the start of the store's flat vectors; set by allocate()
  Tensor value;                      // what forward and backward read: compute dtype for kMatrix, else `master`
  Tensor master;                     // f32, what the optimizer updates; absent where this rank holds only a shard of it
  Tensor gradient;                   // f32

  int64_t count() const;
};

// Elements of a bucket that is reduced around a ring of so many ranks. A ring's steps are as many as its ranks, so with
// them the messages grow smaller and the time that each takes at least counts more: from 16 ranks on, messages of 1
// MiB.
constexpr int64_t bucket_elements_for(int64_t shards) {
  constexpr int64_t kLeast = int64_t{4} << 20, kLeastShard = int64_t{256} << 10;
  return shards * kLeastShard > kLeast ? shards * kLeastShard : kLeast;
}

// How the optimizer's state is divided (ZeRO-1): parameters of either placement over `shards` ranks, of which this one
// is number `index`.
struct Sharding {
  struct Of {
    int64_t shards = 1, index = 0;
  };
  Of everywhere, with_experts;
  int64_t bucket_elements = 0;  // reduced over ranks at a time, about; 0: as bucket_elements_for() says

  const Of& of(Placement placement) const { return placement == Placement::kEverywhere ? everywhere : with_experts; }
};

// A stretch of the flat vectors whose gradients are reduced and whose values are gathered at a time: parameters of one
// kind and placement. This rank updates the owned part of it, one shard.
struct Bucket {
  Placement placement;
  ParameterKind kind;
  int64_t begin = 0, count = 0;              // elements of the flat vectors
  int64_t owned_begin = 0, owned_count = 0;  // likewise
  int64_t state_begin = 0;  // of the owned part in vectors that hold the owned parts alone, one after another
  int64_t order = 0;        // the lowest of its parameters
  Tensor values;            // [count], what forward and backward read
  Tensor gradient;          // f32 [count]
  Tensor owned_master;      // f32 [owned_count]
  Tensor owned_copy;        // [owned_count], the owned part of `values`; absent where that is the master

  Tensor owned_gradient() const { return gradient.slice(owned_begin - begin, owned_count); }
  Tensor owned_values() const { return values.slice(owned_begin - begin, owned_count); }
};

// Parameters lie one behind another in flat vectors (master, gradient, compute copy) with equal offsets, so that the
// optimizer and reductions treat them as one.
class ParameterStore {
 public:
  // A parameter of one part. The reference stays valid.
  Parameter& add(ParameterKind kind, std::string name, std::vector<int64_t> dims, Init init);
  // Several named parts stored as one tensor of `dims`; their counts add up to its count. Offsets are filled in.
  Parameter& add_packed(ParameterKind kind, std::vector<int64_t> dims, std::vector<ParameterPart> parts);
  // The same of experts: `parts` are those of all experts, of which the `local_count` from `local_begin` on make up the
  // tensor of `dims`; the others lie on other ranks.
  Parameter& add_experts(ParameterKind kind, std::vector<int64_t> dims, std::vector<ParameterPart> parts,
                         size_t local_begin, size_t local_count);

  // Allocates the flat vectors in the state arena and points the parameters at them; gradients are zeroed.
  // compute: f32 (value is master) or bf16. gradients: false for evaluation.
  void allocate(Context& ctx, DType compute, bool gradients = true, const Sharding& sharding = {});
  // Fills every part from Philox(seed, part name).
  void initialize(Context& ctx, uint64_t seed);
  // Gives a part of this rank its value: f32 host memory, rounded where the value is bf16.
  void set_part(Context& ctx, const Parameter& parameter, const ParameterPart& part, const float* values);
  // After masters changed on the host's side: refreshes the compute copies. Only where this rank holds all of them.
  void refresh_copies(Context& ctx);

  std::deque<Parameter>& all() { return parameters_; }
  const std::deque<Parameter>& all() const { return parameters_; }
  // Every part of every parameter of this rank, in the order in which they were added.
  void visit(const std::function<void(const Parameter&, const ParameterPart&)>& f) const;
  // All parts of the whole model, one after another at their global offsets.
  struct GlobalPart {
    std::string name;
    std::vector<int64_t> dims;
    int64_t offset;
  };
  const std::vector<GlobalPart>& global_parts() const { return global_parts_; }
  // Elements of all parts of the whole model; the flat vectors are longer by alignment.
  int64_t parameter_count() const { return global_count_; }

  DType compute_dtype() const { return compute_; }
  // f32 [flat_count()], or where masters are sharded the owned parts of matrices and all of the rest, by bucket.
  const Tensor& master() const { return master_; }
  const Tensor& gradient() const { return gradient_; }
  const Tensor& copy() const { return copy_; }  // absent in f32
  int64_t flat_count() const { return flat_count_; }
  int64_t owned_count() const { return owned_count_; }
  // In the order of the flat vectors.
  const std::vector<Bucket>& buckets() const { return buckets_; }

  // The part of a tensor laid out like the parameter (master, gradient).
  static Tensor part_of(const Tensor& tensor, const ParameterPart& part);

  // What this rank owns of a part: elements of the part from part_begin on, and where they lie in the whole model and
  // in vectors of owned parts.
  struct OwnedPiece {
    const ParameterPart* part;
    int64_t part_begin, global_offset, state_begin, count;
  };
  std::vector<OwnedPiece> owned_pieces() const;

 private:
  void lay_out(const Sharding& sharding);
  void allocate_vectors(Context& ctx, bool gradients);
  void point(bool gradients);
  const Bucket& bucket_of(const Parameter& parameter) const;

  std::deque<Parameter> parameters_;
  std::vector<GlobalPart> global_parts_;
  std::vector<Bucket> buckets_;
  int64_t global_count_ = 0, flat_count_ = 0, owned_count_ = 0;
  DType compute_ = DType::kF32;
  Tensor master_, gradient_, copy_;
};

}  // namespace mhmoe::nn
