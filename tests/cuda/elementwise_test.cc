#include "ops/elementwise.h"

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::Twin;
using ElementwiseKernels = test::EmulatedTest;

TEST_F(ElementwiseKernels, CastAgreesWithTheCpuBitForBit) {
  for (const DType from : {DType::kF32, DType::kBF16}) {
    for (const DType to : {DType::kF32, DType::kBF16}) {
      for (const int64_t count : {0, 1, 7, 8, 2047, 2048, 2049}) {
        const Twin in = random(from, {count}), out = garbage(to, {count});
        ops::cast(cpu(), {out.cpu, in.cpu});
        expect_same_bytes_in_every_order({out.emulated}, [&] { ops::cast(emulated(), {out.emulated, in.emulated}); });
        expect_agreement("out", out, 0, 0);
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe
