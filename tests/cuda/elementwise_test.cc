#include "ops/elementwise.h"

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
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

TEST_F(ElementwiseKernels, AddEqualsTheCpuForEveryMixOfTypesAlsoInPlace) {
  constexpr DType kTypes[] = {DType::kF32, DType::kBF16};
  for (const int mix : {0, 1, 2, 3, 4, 5, 6, 7}) {
    for (const int64_t count : {0, 1, 7, 8, 2047, 2048, 2051}) {
      unalign(count == 2047);
      const Twin out = garbage(kTypes[mix & 1], {count}), a = random(kTypes[mix >> 1 & 1], {count});
      const Twin b = random(kTypes[mix >> 2], {count});
      ops::add(cpu(), {out.cpu, a.cpu, b.cpu});
      expect_same_bytes_in_every_order({out.emulated}, [&] {
        ops::add(emulated(), {out.emulated, a.emulated, b.emulated});
      });
      expect_agreement("out", out, 0, 0);
      ops::add(cpu(), {a.cpu, a.cpu, b.cpu});
      ops::add(emulated(), {a.emulated, a.emulated, b.emulated});
      expect_agreement("in place", a, 0, 0);
    }
  }
}

// Counts around a thread's 4 terms, a block's 1024 and a chunk's 16384.
TEST_F(ElementwiseKernels, ReduceAgreesWithTheCpuWhateverTheAlignment) {
  for (const int64_t count : {0, 1, 3, 4, 1023, 1025, 16384, 16385, 40000}) {
    for (const bool squares : {false, true}) {
      std::vector<double> found;
      const Twin in = random(DType::kF32, {count + 1});
      const Tensor behind = in.emulated.slice(1, count);
      const Twin start = filled(DType::kF32, {count}, 0);
      emulated().copy(start.emulated, behind);
      for (const Tensor& terms : {behind, start.emulated}) {
        const Twin out = filled(DType::kF32, {1}, 5), scale = filled(DType::kF32, {1}, 0.5);
        expect_same_bytes_in_every_order({out.emulated}, [&] {
          refresh(out);
          ops::reduce(emulated(), {out.emulated, terms, squares, scale.emulated});
        });
        ops::reduce(cpu(), {out.cpu, in.cpu.slice(1, count), squares, scale.cpu});
        expect_agreement("out", out, 2 * kRoundoff, 0);
        found.push_back(test::read_value(downloaded(out.emulated), 0));
      }
      EXPECT_EQ(found[0], found[1]) << count;
    }
  }
}

}  // namespace
}  // namespace mhmoe
