// Matrix products by oneDNN: primitives made once a kind of product, executed many times.
#pragma once

#include "core/tensor.h"

namespace mhmoe::cpu {

// Whether this CPU multiplies bf16 itself (AVX512-BF16 or AMX). Without it, products of bf16 run in f32.
bool native_bf16();

}  // namespace mhmoe::cpu
