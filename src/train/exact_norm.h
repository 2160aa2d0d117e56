// The sum of squares of all gradients, the same bits however they are divided over ranks (parallel.width_invariant):
// squares become integers, and sums of integers do not depend on order.
#pragma once

#include <span>

#include "core/tensor.h"
#include "device/job.h"

namespace mhmoe::train {

// vectors: f32 in host memory; those of all ranks together make up the gradient, whose elements are at most `elements`.
// Every rank of the job calls; all get the same. Not finite if an element is not.
float exact_sum_squares(Job& job, std::span<const Tensor> vectors, int64_t elements);

}  // namespace mhmoe::train
