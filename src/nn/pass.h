// What a forward or backward pass over one micro-batch carries besides tensors.
#pragma once

#include <optional>

#include "device/communicator.h"
#include "device/context.h"
#include "device/step_part.h"
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
  Communicator* experts = nullptr;    // the ranks that share the experts out; null: all of them are here
  int64_t overlap_chunks = 1;         // groups of a rank's experts whose rows travel while others are computed
  bool verify_transfers = false;      // checksums on rows that travel

  int64_t tokens() const { return batch * sequence_length; }
  bool experts_are_shared_out() const { return experts != nullptr && experts->size() > 1; }
  // Scratch and saved activations.
  Tensor allocate(const char* name, DType dtype, std::initializer_list<int64_t> dims) const {
    return ctx.step().allocate(name, dtype, dims);
  }
  ArenaScope scope() const { return ArenaScope(ctx.step()); }
};

}  // namespace mhmoe::nn
