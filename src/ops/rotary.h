// Rotary position embedding, half-split pairs (i, i + D/2), angle = position * base^(-2i/D).
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// qkv: f32 or bf16 [N, 3 * heads * D], each row q, k, v; q and k are rotated in place, v is left alone.
// Row n has position first_position + n % sequence_length. inverse: rotate by the negative angle, which is the backward
// pass.
struct Rotary {
  Tensor qkv;
  int64_t sequence_length;
  int64_t heads;
  float base;
  bool inverse = false;
  int64_t first_position = 0;
};

void rotary(Context& ctx, const Rotary& args);

}  // namespace mhmoe::ops
