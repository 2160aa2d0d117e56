#include "ops/activation.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using ops::Activation;
using test::kRoundoff;
using test::Twin;
using ActivationKernels = test::EmulatedTest;

constexpr Activation kKinds[] = {Activation::kSwiglu, Activation::kRelu, Activation::kGelu};
// Rows around a block's 8; widths around a pack of 8, a warp's 256 and the 2048 that a block has packs for.
constexpr std::array<int64_t, 2> kShapes[] = {{0, 8}, {1, 1}, {7, 7}, {8, 8}, {9, 33}, {3, 264}, {2, 2056}};

// Functions of normals are at most about 5, SwiGLU's products and gradients about 25, and e^x has a few roundings.
constexpr double kAbsolute = 25 * 16 * kRoundoff;

TEST_F(ActivationKernels, ForwardAgreesWithTheCpu) {
  for (const Activation kind : kKinds) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const auto& [rows, hidden] : kShapes) {
        unalign(rows == 3);
        const Twin pre = random(dtype, {rows, pre_activation_width(kind, hidden)}),
                   out = garbage(dtype, {rows, hidden});
        ops::activation_forward(cpu(), {out.cpu, pre.cpu, kind});
        expect_same_bytes_in_every_order({out.emulated}, [&] {
          ops::activation_forward(emulated(), {out.emulated, pre.emulated, kind});
        });
        expect_agreement("out", out, test::unit_roundoff(dtype), kAbsolute);
      }
    }
  }
}

struct BackwardTwins {
  Twin grad_pre, grad_out, pre, scaled_out, gate, grad_gate, row_assignment;

  // in_place: grad_pre lies in pre, scaled_out in grad_out; routed, not by_row: gates lie by assignment.
  ops::ActivationBackward arguments(Activation kind, bool routed, bool in_place, bool by_row,
                                    Tensor Twin::*side) const {
    ops::ActivationBackward args{.grad_pre = (in_place ? pre : grad_pre).*side,
                                 .grad_out = grad_out.*side,
                                 .pre = pre.*side,
                                 .kind = kind,
                                 .scaled_out = (in_place ? grad_out : scaled_out).*side};
    if (!routed) return args;
    args.gate = gate.*side, args.grad_gate = grad_gate.*side;
    if (by_row) {
      const int64_t rows = args.pre.rows();
      args.gate = args.gate.slice(0, rows), args.grad_gate = args.grad_gate.slice(0, rows);
    } else {
      args.row_assignment = row_assignment.*side;
    }
    return args;
  }
};

TEST_F(ActivationKernels, BackwardAgreesWithTheCpuAlsoInPlace) {
  for (const Activation kind : kKinds) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const auto& [rows, hidden] : kShapes) {
        unalign(rows == 3);
        for (const int options : {0, 1, 2, 3, 5, 7}) {
          const bool routed = (options & 1) != 0, in_place = (options & 2) != 0, by_row = (options & 4) != 0;
          std::vector<double> assignment;  // of 2 R: every other one, backwards; every third row is empty
          for (int64_t r = 0; r < rows; ++r)
            assignment.push_back(r % 3 == 2 ? -1 : static_cast<double>(2 * (rows - r) - 1));
          const int64_t width = pre_activation_width(kind, hidden);
          const BackwardTwins at = {garbage(dtype, {rows, width}),         random(dtype, {rows, hidden}),
                                    random(dtype, {rows, width}),          garbage(dtype, {rows, hidden}),
                                    random(DType::kF32, {2 * rows, 1}),    filled(DType::kF32, {2 * rows, 1}, 7),
                                    given(DType::kI32, {rows}, assignment)};
          const ops::ActivationBackward args = at.arguments(kind, routed, in_place, by_row, &Twin::emulated);
          expect_same_bytes_in_every_order({args.grad_pre, args.scaled_out, at.grad_gate.emulated}, [&] {
            refresh(at.pre), refresh(at.grad_out), refresh(at.grad_gate);
            ops::activation_backward(emulated(), args);
          });
          ops::activation_backward(cpu(), at.arguments(kind, routed, in_place, by_row, &Twin::cpu));
          expect_agreement("grad_pre", in_place ? at.pre : at.grad_pre, test::unit_roundoff(dtype), 5 * kAbsolute);
          expect_agreement("scaled_out", in_place ? at.grad_out : at.scaled_out, test::unit_roundoff(dtype),
                           5 * kAbsolute);
          expect_agreement("grad_gate", at.grad_gate, 0, 5 * kAbsolute * std::sqrt(static_cast<double>(hidden)));
        }
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe
