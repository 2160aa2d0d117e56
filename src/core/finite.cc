#include "core/finite.h"

#include <atomic>
#include <bit>

#include "core/parallel_for.h"

namespace mhmoe {
namespace {

constexpr int64_t kGrain = int64_t{1} << 18;  // elements, below which waking a thread costs more than it saves

// An exponent of ones alone is that of infinities and NaNs: one more in its lowest bit carries into the sign's, which
// has been cleared. Nothing is compared, so that compilers make vector instructions of it.
template <class T, class Bits, Bits exponent>
bool all_finite(const T* values, int64_t count) {
  constexpr Bits kLowest = exponent & (~exponent + 1), kSign = exponent + kLowest;
  Bits carried = 0;
#pragma omp simd reduction(| : carried)
  for (int64_t i = 0; i < count; ++i) {
    carried |= static_cast<Bits>((std::bit_cast<Bits>(values[i]) & exponent) + kLowest);
  }
  return (carried & kSign) == 0;
}

template <class T, class Bits, Bits exponent>
bool all_finite(const Tensor& tensor) {
  const auto* values = tensor.as<const T>();
  std::atomic<bool> finite = true;
  parallel_for(tensor.count(), kGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
    if (!all_finite<T, Bits, exponent>(values + begin, end - begin)) finite = false;
  });
  return finite;
}

}  // namespace

bool all_finite(const Tensor& tensor) {
  switch (tensor.dtype) {
    case DType::kF32:
      return all_finite<float, uint32_t, 0x7f80'0000>(tensor);
    case DType::kBF16:
      return all_finite<bfloat16, uint16_t, 0x7f80>(tensor);
    case DType::kF64:
      return all_finite<double, uint64_t, 0x7ff0'0000'0000'0000>(tensor);
    default:
      return true;
  }
}

}  // namespace mhmoe
