// What a forward or backward pass over one micro-batch carries besides tensors.
#pragma once

#include <optional>

#include "device/context.h"
#include "nn/gradient_sink.h"

namespace mhmoe::nn {

class KeyValueCache;

// Where the MoE layers of one micro-batch leave their statistics; device memory of the caller, overwritten.
struct MoeStatistics {
  Tensor balance_loss;  // f32 [MoE layers]
  Tensor load;          // i32 [MoE layers, E]: assignments naming the expert, dropped ones included
};

struct Pass {
  Context& ctx;
  DType compute;                          // of matrix inputs and saved activations
  int64_t batch, sequence_length;         // rows are ordered [batch, position]
  std::optional<double> capacity_factor;  // absent: dropless
  MoeStatistics statistics;
  GradientSink* gradients = nullptr;  // null: no backward follows, nothing is kept for it
  float balance_scale = 0;            // d objective / d (a layer's balance loss); backward only
  KeyValueCache* cache = nullptr;     // the rows are the next positions of its sequences; no backward

  int64_t tokens() const { return batch * sequence_length; }
  // Scratch and saved activations.
  Tensor allocate(const char* name, DType dtype, std::initializer_list<int64_t> dims) const {
    return ctx.step().allocate(name, dtype, dims);
  }
  ArenaScope scope() const { return ArenaScope(ctx.step()); }
};

}  // namespace mhmoe::nn
