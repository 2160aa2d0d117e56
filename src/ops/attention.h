// Multi-head attention softmax(q k^T / sqrt(D)) v within each sequence of the batch.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

enum class AttentionMask : uint8_t { kCausal, kFull };

struct AttentionShape {
  int64_t batch, sequence_length, heads, head_size;
  AttentionMask mask = AttentionMask::kCausal;
};

// qkv: f32 or bf16 [batch * sequence_length, 3 * heads * head_size], each row q, k, v; head j is the columns
// [j * head_size, (j + 1) * head_size) of its part. out: like qkv, [.., heads * head_size], overwritten.
// log_sum_exp: f32 [batch, heads, sequence_length] of the scaled scores, overwritten, kept for backward.
struct AttentionForward {
  Tensor out, log_sum_exp, qkv;
  AttentionShape shape;
};
// grad_qkv: dtype and shape of qkv, overwritten; grad_out, out: as out.
struct AttentionBackward {
  Tensor grad_qkv, grad_out, qkv, out, log_sum_exp;
  AttentionShape shape;
};

void attention_forward(Context& ctx, const AttentionForward& args);
void attention_backward(Context& ctx, const AttentionBackward& args);

}  // namespace mhmoe::ops
