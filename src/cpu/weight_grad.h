// Gradients of weight matrices, added to what is there: of experts, and of a table whose output rows come in few at a
// time.
#pragma once

#include <cstdint>

#include "cpu/tiles.h"

namespace mhmoe::cpu {

// Group e has the rows [begin[e], begin[e] + rows[e]) of row buffers.
struct RowRanges {
  const int32_t *begin, *rows;
  int64_t groups;
};

// Rows beyond which sums are made in pieces, each of which reads and writes all of the gradient.
constexpr int64_t kWeightGradPiece = 512;

// grad[e] += grad_out[rows of e]^T x[rows of e]: [n, k], n and k being the operands' widths (`ld`).
template <class T>
void add_weight_gradients(float* grad, Stored<T> grad_out, Stored<T> x, const RowRanges& ranges);

}  // namespace mhmoe::cpu
