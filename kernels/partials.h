// The second half of a sum over rows: the first writes one partial sum a fixed chunk of rows.
#pragma once

#include "device/context.h"

namespace mhmoe::cuda {

// total[c] += sum over chunks of partial[chunk, c], in order. total: f32 [cols]; partial: f32 [chunks, cols].
void add_partials(Context& ctx, const Tensor& total, const Tensor& partial);

}  // namespace mhmoe::cuda
