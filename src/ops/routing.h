// Slots in the experts' queues, and the movement of rows between token order and expert order.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// Assignment a = s * k + j is the j-th choice of row s. Queues fill with all first choices in row order, then all
// second choices, and so on; slot is the position in the queue from 0, counted on past the capacity: slot >= capacity
// is dropped. Expert e owns the buffer rows [e * capacity, (e + 1) * capacity); without a capacity (dropless, capacity
// 0) its rows follow those of expert e - 1 without gaps. expert_index: i32 [S, k] in [0, E). Overwritten, all i32: slot
// [S, k]; row_of [S, k], the buffer row or -1 when dropped; row_assignment [R], the assignment a buffer row holds or -1
// when empty; begin [E], first buffer row of an expert; rows [E], its used rows (min(load, capacity)); load [E],
// assignments naming it, dropped ones included. R = E * capacity, or S * k without a capacity.
struct AssignSlots {
  Tensor slot, row_of, row_assignment, begin, rows, load, expert_index;
  int64_t capacity;
};

// out[r] = x[row_assignment[r] / k]; rows with assignment -1 become zero. out: [R, w]; x: [S, w], f32; or both bf16,
// or x f32 and out bf16. row_assignment: i32 [R].
struct GatherRows {
  Tensor out, x, row_assignment;
  int64_t k;
};

// y[s] = addend[s] + sum over j in order of gate[s, j] * rows[row_of[s, j]], skipping row_of -1.
// y: f32 or bf16 [S, w], overwritten; rows: f32 or bf16 [R, w]; row_of: i32 [S, k]; gate: f32 [S, k], optional (1);
// addend: f32 or bf16 [S, w], optional, may be y itself.
struct CombineRows {
  Tensor y, rows, row_of;
  Tensor gate = {};
  Tensor addend = {};
};

void assign_slots(Context& ctx, const AssignSlots& args);
void gather_rows(Context& ctx, const GatherRows& args);
void combine_rows(Context& ctx, const CombineRows& args);

}  // namespace mhmoe::ops
