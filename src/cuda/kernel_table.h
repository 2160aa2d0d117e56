// The CUDA backend's kernels under the names every backend has.
#pragma once

#include "ops/kernel_table.h"

namespace mhmoe::cuda {

const ops::KernelTable& kernel_table();

}  // namespace mhmoe::cuda
