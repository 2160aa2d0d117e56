// An expert's up-projection and its SwiGLU in one kernel on tensor cores: what it would cost to read the
// pre-activations again is saved.
#pragma once

#include "ops/grouped_matmul.h"

namespace mhmoe::cuda {

// Whether `activated` is asked for, by SwiGLU, of bf16 tensors that fit tensor cores.
bool fits_grouped_swiglu(const ops::GroupedMatmul& args);
// out and activated, for arguments that fit.
void grouped_swiglu(Context& ctx, const ops::GroupedMatmul& args);

}  // namespace mhmoe::cuda
