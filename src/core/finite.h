// Whether numbers are finite, looked at as fast as memory is read.
#pragma once

#include "core/api.h"
#include "core/tensor.h"

namespace mhmoe {

// Of a tensor on the CPU. Integers always are.
MHMOE_API bool all_finite(const Tensor& tensor);

}  // namespace mhmoe
