// Multi-head attention softmax(q k^T / sqrt(D)) v within each sequence of the batch.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

enum class AttentionMask : uint8_t { kCausal, kFull, kPrefix };

struct AttentionShape {
  int64_t batch, sequence_length, heads, head_size;
  AttentionMask mask = AttentionMask::kCausal;
};

// Which keys a query sees, positions counted from the start of its sequence b: key j is seen by query i
//   kCausal: if j <= i;  kFull: always;  kPrefix: if j <= i or j < prefix_lengths[b];
// and in all three, where key_lengths is given, only if j < key_lengths[b]. Both: i32 [batch]; prefix_lengths belongs
// to kPrefix alone, key_lengths is optional. Lengths below 0 are taken as 0, those beyond sequence_length as that. Keys
// behind every query's reach have no influence, whatever they hold, and zero gradients (k and v). A query that sees no
// key (key_lengths[b] is 0) has out 0, log_sum_exp -infinity, gradients 0, and gives none.

// qkv: f32 or bf16 [batch * sequence_length, 3 * heads * head_size], each row q, k, v; head j is the columns
// [j * head_size, (j + 1) * head_size) of its part. out: like qkv, [.., heads * head_size], overwritten.
// log_sum_exp: f32 [batch, heads, sequence_length] of the scaled scores, overwritten, kept for backward.
struct AttentionForward {
  Tensor out, log_sum_exp, qkv;
  AttentionShape shape;
  Tensor prefix_lengths = {}, key_lengths = {};
};
// grad_qkv: dtype and shape of qkv, overwritten; grad_out, out: as out.
struct AttentionBackward {
  Tensor grad_qkv, grad_out, qkv, out, log_sum_exp;
  AttentionShape shape;
  Tensor prefix_lengths = {}, key_lengths = {};
};
// The forward pass for the next positions of sequences whose earlier keys and values were kept: shape.sequence_length
// rows of qkv a sequence, at positions first_position and following; the mask is causal. keys, values: dtype of qkv
// [batch, heads, capacity, head_size]; their rows before first_position are read, those of the new positions are
// overwritten with k and v of qkv, those behind are left alone. out: as above; the bits of its rows do not depend on
// how many positions one call brings.
struct AttentionCached {
  Tensor out, keys, values, qkv;
  AttentionShape shape;
  int64_t first_position;
};

void attention_forward(Context& ctx, const AttentionForward& args);
void attention_backward(Context& ctx, const AttentionBackward& args);
void attention_cached(Context& ctx, const AttentionCached& args);

}  // namespace mhmoe::ops
