// Attention to kept keys and values, what `mhmoe generate` runs.
#include "cuda/emulated_test.h"
#include "ops/attention.h"

namespace mhmoe {
namespace {

using ops::AttentionShape;
using test::kRoundoff;
using test::Twin;

class AttentionCachedKernels : public test::EmulatedTest {
 protected:
  // Positions before `first` were kept by an earlier call, those behind the new ones are of none yet.
  void check(const AttentionShape& shape, int64_t capacity, int64_t first, DType dtype) {
    SCOPED_TRACE(fmt::format("[{}, {}, {}, {}] capacity {}, from position {} {}", shape.batch, shape.sequence_length,
                             shape.heads, shape.head_size, capacity, first, to_string(dtype)));
    const int64_t tokens = shape.batch * shape.sequence_length, width = shape.heads * shape.head_size;
    const Twin out = garbage(dtype, {tokens, width}), qkv = random(dtype, {tokens, 3 * width}),
               keys = random(dtype, {shape.batch, shape.heads, capacity, shape.head_size}),
               values = random(dtype, {shape.batch, shape.heads, capacity, shape.head_size});
    const auto run = [&](Context& ctx, Tensor Twin::*side) {
      ops::attention_cached(ctx, {out.*side, keys.*side, values.*side, qkv.*side, shape, first});
    };
    expect_same_bytes_in_every_order({out.emulated, keys.emulated, values.emulated}, [&] {
      for (const Twin& output : {out, keys, values}) refresh(output);
      run(emulated(), &Twin::emulated);
    });
    run(cpu(), &Twin::cpu);
    // Sums over keys of numbers of order 1 whose weights sum to 1; bf16 results may be rounded to either side.
    const double roundoff = dtype == DType::kBF16 ? test::unit_roundoff(dtype) : 0;
    expect_agreement("out", out, 2 * roundoff, 100 * kRoundoff);
    test::expect_equal("keys", downloaded(keys.emulated), test::values(keys.cpu));
    test::expect_equal("values", downloaded(values.emulated), test::values(values.cpu));
  }
};

TEST_F(AttentionCachedKernels, AgreeWithTheCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    check({1, 1, 1, 1}, 1, 0, dtype);
    check({2, 33, 3, 20}, 40, 0, dtype);     // a prompt
    check({2, 1, 3, 20}, 40, 33, dtype);     // one token more
    check({3, 1, 2, 64}, 70, 69, dtype);     // the last that there is room for
    check({1, 31, 2, 33}, 64, 32, dtype);    // a part of a prompt
    check({1, 2, 1, 128}, 131, 127, dtype);  // more keys than a warp's lanes take at a time
    check({0, 1, 2, 8}, 4, 0, dtype);
  }
}

// Rows that begin at no 16-byte address.
TEST_F(AttentionCachedKernels, UnalignedTensorsAreFine) {
  unalign();
  for (const DType dtype : {DType::kF32, DType::kBF16}) check({1, 5, 2, 32}, 40, 30, dtype);
}

}  // namespace
}  // namespace mhmoe
