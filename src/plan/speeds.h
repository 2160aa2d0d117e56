// How fast a device is at its best: by a data sheet, or as it was measured.
#pragma once

#include "core/dtype.h"

namespace mhmoe::plan {

struct Speeds {
  double bytes_per_second;
  double bf16_flops, f32_flops;  // of matrix products, a second, by the type of their operands

  double flops(DType product) const { return product == DType::kBF16 ? bf16_flops : f32_flops; }
};

}  // namespace mhmoe::plan
