#include "ops/matmul.h"

#include <algorithm>
#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
using test::Twin;
using MatmulKernels = test::EmulatedTest;

struct Twins {
  Twin out, a, b;
  bool transpose_a = false, transpose_b = false;
  Twin bias = {}, addend = {};

  ops::Matmul on(Tensor Twin::*side) const {
    return {out.*side, a.*side, b.*side, transpose_a, transpose_b, bias.*side, addend.*side};
  }
};

// Both sum k products of normals in f32, whose partial sums are of about sqrt(k).
double sum_error(int64_t k) {
  return 4 * static_cast<double>(k) * kRoundoff;
}

// k on both sides of 256: a product that adds partial sums in the output's type, or rounds f32 operands, is found.
constexpr std::array<int64_t, 3> kShapes[] = {{1, 1, 1}, {7, 33, 3}, {63, 65, 255}, {65, 36, 257}, {12, 20, 700}};

TEST_F(MatmulKernels, EveryLayoutAndTypeAgreesWithTheCpu) {
  const std::pair<DType, DType> types[] = {
      {DType::kF32, DType::kF32}, {DType::kBF16, DType::kF32}, {DType::kBF16, DType::kBF16}};
  for (const auto& [in, out] : types) {
    for (const auto& [m, n, k] : kShapes) {
      for (const int layout : {0, 1, 2, 3}) {
        const bool transpose_a = layout % 2 == 1, transpose_b = layout / 2 == 1;
        const Twins twins = {garbage(out, {m, n}), transpose_a ? random(in, {k, m}) : random(in, {m, k}),
                             transpose_b ? random(in, {n, k}) : random(in, {k, n}), transpose_a, transpose_b};
        ops::matmul(cpu(), twins.on(&Twin::cpu));
        ops::matmul(emulated(), twins.on(&Twin::emulated));
        expect_agreement("out", twins.out, 2 * test::unit_roundoff(out), sum_error(k));
      }
    }
  }
}

TEST_F(MatmulKernels, BiasAndAddendAgreeWithTheCpuAlsoAtUnevenAddresses) {
  for (const bool uneven : {false, true}) {
    unalign(uneven);
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{5, 8, 9}, {33, 36, 16}, {300, 7, 1}, {4, 4, 0}}) {
      for (const DType in : {DType::kF32, DType::kBF16}) {
        const Twin a = random(in, {m, k}), b = random(in, {n, k}), bias = random(DType::kF32, {n});
        const Twins narrow = {.out = garbage(in, {m, n}), .a = a, .b = b, .transpose_b = true, .bias = bias};
        const Twin addend = random(DType::kF32, {m, n}), total = random(DType::kF32, {m, n});
        const Twins separate = {
            .out = garbage(DType::kF32, {m, n}), .a = a, .b = b, .transpose_b = true, .bias = bias, .addend = addend};
        const Twins in_place = {.out = total, .a = a, .b = b, .transpose_b = true, .bias = bias, .addend = total};
        for (const Twins& twins : {narrow, separate, in_place}) {
          expect_same_bytes_in_every_order({twins.out.emulated}, [&] {
            refresh(twins.out);
            ops::matmul(emulated(), twins.on(&Twin::emulated));
          });
          ops::matmul(cpu(), twins.on(&Twin::cpu));
          expect_agreement("out", twins.out, 2 * test::unit_roundoff(twins.out.cpu.dtype), sum_error(k + 2));
        }
      }
    }
  }
}

// A bf16 output with a bias is made in chunks of rows of 16 MiB of f32: four rows here, then one.
TEST_F(MatmulKernels, ABiasIsAddedToEveryChunkOfRows) {
  const int64_t m = 5, n = int64_t{1} << 20, k = 2;
  for (const bool transpose_a : {false, true}) {
    const Tensor a = transpose_a ? given(DType::kBF16, {k, m}, {1, 2, 3, 4, 5, 1, 1, 1, 1, 1}).emulated
                                 : given(DType::kBF16, {m, k}, {1, 1, 2, 1, 3, 1, 4, 1, 5, 1}).emulated;
    const Tensor b = filled(DType::kBF16, {k, n}, 0.5).emulated, bias = filled(DType::kF32, {n}, 0.25).emulated;
    const Tensor out = filled(DType::kBF16, {m, n}, 0).emulated;
    ops::matmul(emulated(), {.out = out, .a = a, .b = b, .transpose_a = transpose_a, .bias = bias});
    for (int64_t r = 0; r < m; ++r) {
      const double expected = 0.5 * static_cast<double>(r + 1) + 0.5 + 0.25;
      const auto row = test::values(downloaded(out.slice_rows(r, 1)));
      EXPECT_EQ(std::ranges::count(row, expected), n) << "row " << r << " begins with " << row[0];
    }
  }
}

// Each context has a handle and a workspace of its own, and gives them back: a product on one says nothing of others.
TEST_F(MatmulKernels, ContextsDoNotShareWorkspaces) {
  const Twins twins = {random(DType::kF32, {9, 10}), random(DType::kF32, {9, 11}), random(DType::kF32, {11, 10})};
  ops::matmul(emulated(), twins.on(&Twin::emulated));
  const auto expected = test::values(downloaded(twins.out.emulated));
  for (int i = 0; i < 3; ++i) {
    const auto other = test::tested_backend().create_context(0);
    const ArenaScope scope(other->step());
    const Tensor kept = other->step().allocate("kept", DType::kF32, {1000});
    other->upload(kept, std::vector<float>(1000, 3).data());
    ops::Matmul args = twins.on(&Twin::emulated);
    args.out = other->step().allocate("out", DType::kF32, {9, 10});
    ops::matmul(*other, args);
    ops::matmul(emulated(), twins.on(&Twin::emulated));
    other->synchronize();
    test::expect_equal("kept", downloaded(kept), std::vector<double>(1000, 3));
    test::expect_equal("on the other context", downloaded(args.out), expected);
    test::expect_equal("on the first context", downloaded(twins.out.emulated), expected);
  }
}

// Rows around a chunk of 128, columns around a block of 256 threads, packed by four and not.
TEST_F(MatmulKernels, BiasBackwardAgreesWithTheCpuAndAccumulates) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, cols] :
         {std::array<int64_t, 2>{0, 5}, {1, 1}, {127, 255}, {128, 257}, {129, 1024}, {300, 1028}}) {
      const Twin grad_bias = random(DType::kF32, {cols}), grad_out = random(dtype, {rows, cols});
      expect_same_bytes_in_every_order({grad_bias.emulated}, [&] {
        refresh(grad_bias);
        ops::bias_backward(emulated(), {grad_bias.emulated, grad_out.emulated});
      });
      ops::bias_backward(cpu(), {grad_bias.cpu, grad_out.cpu});
      // Chunks' sums are exact but for one rounding each; normals' sums stay under five times sqrt(rows).
      const double largest = 5 * std::sqrt(static_cast<double>(rows)) + 5;
      expect_agreement("grad_bias", grad_bias, 0, 5 * largest * kRoundoff);
    }
  }
}

}  // namespace
}  // namespace mhmoe
