#include "train/non_finite_probe.h"

#include <algorithm>
#include <cmath>

namespace mhmoe::train {
namespace {

template <class T>
bool all_finite(const Tensor& tensor) {
  return std::all_of(tensor.as<const T>(), tensor.as<const T>() + tensor.count(),
                     [](T value) { return std::isfinite(static_cast<float>(value)); });
}

}  // namespace

void NonFiniteProbe::record(const std::string& name, const Tensor& tensor) {
  const bool floating = tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16;
  if (!first_.empty() || !floating) return;
  bytes_.resize(tensor.bytes());
  ctx_.download(bytes_.data(), tensor);
  const Tensor host(bytes_.data(), tensor.dtype, {tensor.count()});
  const bool finite = tensor.dtype == DType::kF32 ? all_finite<float>(host) : all_finite<bfloat16>(host);
  if (!finite) first_ = name;
}

}  // namespace mhmoe::train
