#include "ops/rotary.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
using test::Twin;
using RotaryKernels = test::EmulatedTest;

TEST_F(RotaryKernels, AgreesWithTheCpuBothWays) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool inverse : {false, true}) {
      for (const auto& [rows, heads, half] :
           {std::array<int64_t, 3>{1, 1, 1}, {37, 3, 7}, {9, 2, 32}, {33, 2, 8}, {7, 1, 12}, {5, 3, 16}, {0, 2, 4}}) {
        unalign(half == 16);
        const Twin qkv = random(dtype, {rows, 6 * heads * half});
        const auto args = [&, h = heads](const Tensor& tensor) {
          return ops::Rotary{.qkv = tensor,
                             .sequence_length = 8,
                             .heads = h,
                             .base = 10000,
                             .inverse = inverse,
                             .first_position = inverse ? 0 : 5};
        };
        expect_same_bytes_in_every_order({qkv.emulated}, [&] {
          refresh(qkv);
          ops::rotary(emulated(), args(qkv.emulated));
        });
        ops::rotary(cpu(), args(qkv.cpu));
        expect_agreement("qkv", qkv, 2 * test::unit_roundoff(dtype), 16 * kRoundoff);
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe
