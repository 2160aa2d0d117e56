#include "train/non_finite_probe.h"

#include "core/finite.h"

namespace mhmoe::train {

void NonFiniteProbe::record(const std::string& name, const Tensor& tensor) {
  const bool floating = tensor.dtype == DType::kF32 || tensor.dtype == DType::kBF16;
  if (!first_.empty() || !floating) return;
  bytes_.resize(tensor.bytes());
  ctx_.download(bytes_.data(), tensor);
  if (!all_finite(Tensor(bytes_.data(), tensor.dtype, {tensor.count()}))) first_ = name;
}

}  // namespace mhmoe::train
