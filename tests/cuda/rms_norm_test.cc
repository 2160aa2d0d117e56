#include "ops/rms_norm.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
using test::Twin;
using RmsNormKernels = test::EmulatedTest;

constexpr float kEps = 1e-5f;
// Rows around a block's 8 and a chunk's 32, columns around a warp's stride (32, packed 128), packed and not; and so
// many columns that a block has room for the sums of fewer warps.
constexpr std::array<int64_t, 2> kNormShapes[] = {{0, 8},   {1, 1},    {5, 31},   {8, 32},   {9, 132},
                                                  {33, 33}, {129, 64}, {2, 1025}, {9, 3080}, {3, 26000}};

TEST_F(RmsNormKernels, ForwardAgreesWithTheCpu) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, cols] : kNormShapes) {
      const Twin x = random(DType::kF32, {rows, cols}, 3), weight = random(DType::kF32, {cols});
      const Twin y = garbage(dtype, {rows, cols}), inv_rms = garbage(DType::kF32, {rows});
      ops::rms_norm_forward(cpu(), {y.cpu, inv_rms.cpu, x.cpu, weight.cpu, kEps});
      expect_same_bytes_in_every_order({y.emulated, inv_rms.emulated}, [&] {
        ops::rms_norm_forward(emulated(), {y.emulated, inv_rms.emulated, x.emulated, weight.emulated, kEps});
      });
      // A sum of squares of n terms errs by at most n roundings, its root by half of that.
      const double relative = (static_cast<double>(cols) + 8) * kRoundoff;
      expect_agreement("inv_rms", inv_rms, relative, 0);
      expect_agreement("y", y, relative + 2 * test::unit_roundoff(dtype), 0);
    }
  }
}

TEST_F(RmsNormKernels, BackwardAgreesWithTheCpuAndAccumulates) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [rows, cols] : kNormShapes) {
      const Twin x = random(DType::kF32, {rows, cols}), weight = random(DType::kF32, {cols});
      const Twin grad_y = random(dtype, {rows, cols});
      const Twin grad_x = random(DType::kF32, {rows, cols}), grad_weight = random(DType::kF32, {cols});
      const Twin y = garbage(DType::kF32, {rows, cols}), inv_rms = garbage(DType::kF32, {rows});
      ops::rms_norm_forward(cpu(), {y.cpu, inv_rms.cpu, x.cpu, weight.cpu, kEps});
      refresh(inv_rms);
      const Twin sums[] = {grad_x, grad_weight};
      expect_same_bytes_in_every_order({grad_x.emulated, grad_weight.emulated}, [&] {
        for (const Twin& sum : sums) refresh(sum);
        ops::rms_norm_backward(emulated(), {grad_x.emulated, grad_weight.emulated, grad_y.emulated, x.emulated,
                                            inv_rms.emulated, weight.emulated});
      });
      ops::rms_norm_backward(cpu(), {grad_x.cpu, grad_weight.cpu, grad_y.cpu, x.cpu, inv_rms.cpu, weight.cpu});
      // Terms are products of three normals, at most about 30, inv_rms at most about 10 in rows of one element.
      expect_agreement("grad_x", grad_x, 0, 300 * (std::sqrt(static_cast<double>(cols)) + 8) * kRoundoff);
      expect_agreement("grad_weight", grad_weight, 0, 30 * (std::sqrt(static_cast<double>(rows)) + 8) * kRoundoff);
    }
  }
}

TEST_F(RmsNormKernels, BackwardCutsManyRowsIntoLargerChunks) {
  const int64_t rows = 512 * 32 + 9;
  const Twin x = random(DType::kF32, {rows, 4}), grad_y = random(DType::kF32, {rows, 4});
  const Twin weight = random(DType::kF32, {4}), inv_rms = filled(DType::kF32, {rows}, 0.5);
  const Twin grad_x = random(DType::kF32, {rows, 4}), grad_weight = random(DType::kF32, {4});
  const auto run = [&](Context& ctx, Tensor Twin::*side) {
    ops::rms_norm_backward(ctx, {grad_x.*side, grad_weight.*side, grad_y.*side, x.*side, inv_rms.*side, weight.*side});
  };
  run(cpu(), &Twin::cpu);
  run(emulated(), &Twin::emulated);
  expect_agreement("grad_x", grad_x, 0, 100 * kRoundoff);
  // Sums of 16393 products of two normals, about 150 in the end: errors of partial sums that grow as their root.
  expect_agreement("grad_weight", grad_weight, 0, 150 * 16 * kRoundoff);
}

TEST_F(RmsNormKernels, ScratchIsGivenBack) {
  const Twin x = random(DType::kF32, {20, 12}), weight = random(DType::kF32, {12}),
             inv_rms = garbage(DType::kF32, {20});
  const size_t before = emulated().step().used_bytes();
  ops::rms_norm_backward(emulated(),
                         {x.emulated, weight.emulated, x.emulated, x.emulated, inv_rms.emulated, weight.emulated});
  EXPECT_EQ(emulated().step().used_bytes(), before);
}

}  // namespace
}  // namespace mhmoe
