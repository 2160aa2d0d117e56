#include "core/finite.h"

#include <atomic>
#include <bit>

#include "core/parallel_for.h"

namespace mhmoe {
namespace {

constexpr int64_t kGrain = int64_t{1} << 18;  // elements, below which waking a thread costs more than it saves

// An exponent of ones alone is that of infinities and NaNs. Without branches, so that the loop becomes vector
// instructions.
template <class T, class Bits>
bool all_finite(const Tensor& tensor, Bits exponent) {
  const auto* values = tensor.as<const T>();
  std::atomic<bool> finite = true;
  parallel_for(tensor.count(), kGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
    Bits bad = 0;
#pragma omp simd reduction(| : bad)
    for (int64_t i = begin; i < end; ++i) {
      bad |= static_cast<Bits>((std::bit_cast<Bits>(values[i]) & exponent) == exponent ? 1 : 0);
    }
    if (bad != 0) finite = false;
  });
  return finite;
}

}  // namespace

bool all_finite(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return all_finite<float, uint32_t>(tensor, 0x7f80'0000);
    case DType::kBF16:
      return all_finite<bfloat16, uint16_t>(tensor, 0x7f80);
    case DType::kF64:
      return all_finite<double, uint64_t>(tensor, 0x7ff0'0000'0000'0000);
    default:
      return true;
  }
}

}  // namespace mhmoe
