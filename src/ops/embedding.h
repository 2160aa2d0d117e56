// Rows of a table by token id, and the gradient of the table.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// out[n] = table[tokens[n]]. out: f32 [N, d]; table: f32 or bf16 [V, d]; tokens: i32, N elements in [0, V).
struct EmbeddingForward {
  Tensor out, table, tokens;
};
// grad_table[tokens[n]] += grad_out[n], rows of equal token in order of n. grad_table, grad_out: f32.
struct EmbeddingBackward {
  Tensor grad_table, grad_out, tokens;
};

void embedding_forward(Context& ctx, const EmbeddingForward& args);
void embedding_backward(Context& ctx, const EmbeddingBackward& args);

}  // namespace mhmoe::ops
