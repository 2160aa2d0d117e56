#include "core/finite.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "core/parallel_for.h"

namespace mhmoe {
namespace {

template <class T>
Tensor view(std::vector<T>& values) {
  return Tensor(values.data(), DTypeOf<T>::value, {static_cast<int64_t>(values.size())});
}

// Wherever it lies, also where several threads look.
TEST(Finite, OneValueAnywhereIsFound) {
  const ThreadCount threads(2);
  std::vector<float> values((size_t{3} << 18) + 5, std::numeric_limits<float>::max());
  values[1] = -std::numeric_limits<float>::denorm_min();
  EXPECT_TRUE(all_finite(view(values)));
  for (const size_t at : {size_t{0}, size_t{7}, values.size() / 2, values.size() - 1}) {
    for (const float bad : {std::nanf(""), -std::nanf("1"), HUGE_VALF, -HUGE_VALF}) {
      const float good = std::exchange(values[at], bad);
      EXPECT_FALSE(all_finite(view(values))) << bad << " at " << at;
      values[at] = good;
    }
  }
  EXPECT_TRUE(all_finite(view(values)));
}

TEST(Finite, OfEveryElementType) {
  std::vector<double> f64 = {1e308, -0.0, 5e-324};
  std::vector<bfloat16> bf16 = {bfloat16(3e38f), bfloat16(-1.0f)};
  EXPECT_TRUE(all_finite(view(f64)) && all_finite(view(bf16)));
  f64.push_back(-HUGE_VAL);
  bf16.push_back(bfloat16(std::nanf("")));
  EXPECT_FALSE(all_finite(view(f64)) || all_finite(view(bf16)));
  std::vector<int32_t> integers = {INT32_MIN, 0x7f800000};
  std::vector<float> none;
  EXPECT_TRUE(all_finite(view(integers)) && all_finite(view(none)));
}

}  // namespace
}  // namespace mhmoe
