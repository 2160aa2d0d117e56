// Element-by-element helpers and reductions to a scalar.
#pragma once

#include "device/context.h"

namespace mhmoe::ops {

// out = in, converted. Equal counts; f32 or bf16 each. May alias only when the dtypes are equal.
struct Cast {
  Tensor out, in;
};
// out = a + b. Equal counts; f32 or bf16 each; out may be a or b.
struct Add {
  Tensor out, a, b;
};
// out[0] += scale[0] * sum(in), or the sum of squares. out, scale: f32 [1], scale absent for 1; in: f32. Sums in fixed
// chunks: the same bits at any number of threads.
struct Reduce {
  Tensor out, in;
  bool squares = false;
  Tensor scale = {};
};

void cast(Context& ctx, const Cast& args);
void add(Context& ctx, const Add& args);
void reduce(Context& ctx, const Reduce& args);

}  // namespace mhmoe::ops
