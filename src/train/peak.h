// What the device reaches on one large matrix product: the 100 % of "x% of peak".
#pragma once

#include "device/backend.h"

namespace mhmoe::train {

// FLOPs a second of the best of a few products, within about a quarter of a second.
double measure_matmul_peak(const Backend& backend, DType compute);

}  // namespace mhmoe::train
