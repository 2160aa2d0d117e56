#include "nn/model_config.h"

#include <cmath>

namespace mhmoe::nn {

int64_t expert_capacity(const MoeConfig& moe, std::optional<double> capacity_factor, int64_t rows) {
  if (!capacity_factor) return 0;
  // Six decimals are kept: the schema admits no finer factor.
  constexpr int64_t kUnit = 1'000'000;
  const int64_t factor = std::llround(*capacity_factor * static_cast<double>(kUnit));
  const int64_t denominator = kUnit * moe.experts;
  return moe.top_k * ((factor * rows + denominator - 1) / denominator);
}

}  // namespace mhmoe::nn
