// What one op asks of the hardware, from its arguments alone: bytes that must move and FLOPs of its products.
#pragma once

#include <string>

#include "ops/op_call.h"

namespace mhmoe::plan {

// bytes: every tensor that the op reads or writes once, each way counted, whatever the backend's kernel does; so a
//   kernel that reads its input twice, or keeps sums in scratch, lies above the floor that follows from it.
//   Of tables addressed by index (embedding, rows before gathering) each row counts once.
// flops: 2 m n k of matrix products, and attention's; element-wise work counts nothing: its floor is that of its bytes.
//   Rows of experts count as if every slot of every expert were used.
struct OpCost {
  std::string op;
  std::string shape;  // what tells calls of one op with different costs apart
  double bytes = 0;
  double flops = 0;
  DType product = DType::kF32;  // of the operands of those FLOPs
};

OpCost cost_of(const ops::OpCall& call);
OpCost cost_of_fill(const Tensor& dst);
OpCost cost_of_copy(const Tensor& dst, const Tensor& src);

}  // namespace mhmoe::plan
