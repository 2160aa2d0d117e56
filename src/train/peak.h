// How fast a device multiplies matrices: the 100 % of "x % of peak", and the table of `mhmoe bench gemm`.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device/backend.h"

namespace mhmoe::train {

// [m, k] by [k, n] as layers ask for it: the right factor is a weight [n, k]; or, as gradients of weights are made, the
// left one comes as [k, m], the right one as [k, n], and the f32 result is added to what is there.
struct Product {
  int64_t m, n, k;
  bool weight_gradient = false;

  double flops() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

struct ProductSpeed {
  Product product;
  double best = 0, median = 0;  // FLOPs a second
  int64_t runs = 0;
};

// Operands of `compute`, random; results f32 or, for a layer's product, `compute`. All products in turn, so that a
// disturbance meets all of them: `rounds` times, and again until the seconds are over.
std::vector<ProductSpeed> measure_products(const Backend& backend, DType compute, std::span<const Product> products,
                                           double seconds, int rounds);

// FLOPs a second of the best run of a few large products, within about half a second.
double measure_matmul_peak(const Backend& backend, DType compute);

}  // namespace mhmoe::train
