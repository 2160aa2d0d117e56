// CUDA's kernels, executed on the CPU, against the CPU backend, at odd shapes and in every thread order. The CPU
// backend is itself judged by oracles in tests/ops, which also run on the emulated device (CMakeLists.txt).
#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using ops::BalanceCounts;
using test::Twin;
using Kernels = test::EmulatedTest;

constexpr double kRoundoff = 0x1p-24;
constexpr float kEps = 1e-5f;
// Rows around a block (8 rows) and a chunk (128), columns around a warp's stride (32, packed 128), packed and not.
constexpr std::array<int64_t, 2> kNormShapes[] = {{1, 1}, {5, 31}, {8, 32}, {9, 132}, {129, 33}, {300, 64}, {2, 1025}};

TEST_F(Kernels, RmsNormForwardAgreesWithTheCpu) {
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

TEST_F(Kernels, RmsNormBackwardAgreesWithTheCpuAndAccumulates) {
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

struct RouterTwins {
  Twin probabilities, expert_index, gate_weight, share, balance_loss;
};

TEST_F(Kernels, RouterForwardAgreesWithTheCpu) {
  for (const bool normalize : {false, true}) {
    for (const auto counts : {BalanceCounts::kFirstChoice, BalanceCounts::kAllChoices}) {
      for (const auto& [rows, experts, k] :
           {std::array<int64_t, 3>{1, 1, 1}, {1, 5, 2}, {9, 8, 8}, {129, 33, 3}, {40, 300, 6}}) {
        const Twin logits = random(DType::kF32, {rows, experts}, 2);
        const RouterTwins out = {garbage(DType::kF32, {rows, experts}), garbage(DType::kI32, {rows, k}),
                                 garbage(DType::kF32, {rows, k}), garbage(DType::kF32, {experts}),
                                 garbage(DType::kF32, {1})};
        ops::router_forward(cpu(), {out.probabilities.cpu, out.expert_index.cpu, out.gate_weight.cpu, out.share.cpu,
                                    out.balance_loss.cpu, logits.cpu, normalize, counts});
        expect_same_bytes_in_every_order(
            {out.probabilities.emulated, out.expert_index.emulated, out.gate_weight.emulated, out.share.emulated,
             out.balance_loss.emulated},
            [&] {
              ops::router_forward(emulated(),
                                  {out.probabilities.emulated, out.expert_index.emulated, out.gate_weight.emulated,
                                   out.share.emulated, out.balance_loss.emulated, logits.emulated, normalize, counts});
            });
        const double relative = (static_cast<double>(experts) + 32) * kRoundoff;
        expect_agreement("probabilities", out.probabilities, relative, 0);
        expect_agreement("expert_index", out.expert_index, 0, 0);
        expect_agreement("gate_weight", out.gate_weight, 2 * relative, 0);
        expect_agreement("share", out.share, 4 * kRoundoff, 0);
        expect_agreement("balance_loss", out.balance_loss, relative + 128 * kRoundoff, 0);
      }
    }
  }
}

TEST_F(Kernels, RouterBackwardAgreesWithTheCpuAlsoInPlace) {
  for (const bool normalize : {false, true}) {
    for (const auto& [rows, experts, k] : {std::array<int64_t, 3>{1, 5, 2}, {9, 8, 8}, {130, 33, 3}}) {
      const Twin logits = random(DType::kF32, {rows, experts}, 2), grad_gate = random(DType::kF32, {rows, k});
      const RouterTwins in = {garbage(DType::kF32, {rows, experts}), garbage(DType::kI32, {rows, k}),
                              garbage(DType::kF32, {rows, k}), garbage(DType::kF32, {experts}),
                              garbage(DType::kF32, {1})};
      ops::router_forward(cpu(), {in.probabilities.cpu, in.expert_index.cpu, in.gate_weight.cpu, in.share.cpu,
                                  in.balance_loss.cpu, logits.cpu, normalize, BalanceCounts::kAllChoices});
      refresh(in.expert_index), refresh(in.share);
      expect_same_bytes_in_every_order({in.probabilities.emulated}, [&] {
        refresh(in.probabilities);
        ops::router_backward(emulated(), {in.probabilities.emulated, grad_gate.emulated, in.probabilities.emulated,
                                          in.expert_index.emulated, in.share.emulated, normalize, 0.5f});
      });
      ops::router_backward(cpu(), {in.probabilities.cpu, grad_gate.cpu, in.probabilities.cpu, in.expert_index.cpu,
                                   in.share.cpu, normalize, 0.5f});
      // Gradients of gates are at most about 5, divided by the chosen probabilities' sum, which is at least 1 /
      // experts.
      expect_agreement("grad_logits", in.probabilities, 0, 10 * static_cast<double>(experts) * 8 * kRoundoff);
    }
  }
}

TEST_F(Kernels, RouterOfNoRowsGivesZeroes) {
  const Twin none = filled(DType::kF32, {0, 5}, 0), index = filled(DType::kI32, {0, 2}, 0);
  const Twin gates = filled(DType::kF32, {0, 2}, 0), share = garbage(DType::kF32, {5});
  const Twin loss = garbage(DType::kF32, {1});
  ops::router_forward(emulated(), {none.emulated, index.emulated, gates.emulated, share.emulated, loss.emulated,
                                   none.emulated, true, BalanceCounts::kFirstChoice});
  test::expect_equal("share", downloaded(share.emulated), std::vector<double>(5, 0));
  test::expect_equal("balance_loss", downloaded(loss.emulated), std::vector<double>(1, 0));
}

TEST_F(Kernels, ClipScaleAgreesWithTheCpuAndRefusesWhatIsNotFinite) {
  const double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  for (const float clip : {0.0f, 0.5f, 2.0f}) {
    for (const auto& [squares, loss] :
         {std::array{0.0, 1.0}, {4.0, 1.0}, {4.0, 3.1}, {9.1, 1.0}, {9.0, nan}, {nan, 1.0}, {infinity, 1.0}}) {
      const Twin scalars = filled(DType::kF32, {ops::kStepScalarCount}, 3);  // also the limits of loss and norm
      const Twin sum = filled(DType::kF32, {1}, squares), loss_value = filled(DType::kF32, {1}, loss);
      ops::clip_scale(cpu(), {scalars.cpu, sum.cpu, loss_value.cpu, clip});
      ops::clip_scale(emulated(), {scalars.emulated, sum.emulated, loss_value.emulated, clip});
      const Tensor got = downloaded(scalars.emulated);
      EXPECT_EQ(got.as<float>()[ops::kRefuse], scalars.cpu.as<float>()[ops::kRefuse]);
      if (got.as<float>()[ops::kRefuse] == 0) expect_agreement("scalars", scalars, 2 * kRoundoff, 0);
    }
  }
}

TEST_F(Kernels, AdamUpdateAgreesWithTheCpu) {
  std::array<double, ops::kStepScalarCount> scalar_values{};
  scalar_values[ops::kLearningRate] = 1e-3;
  scalar_values[ops::kBiasCorrection1] = 0.19;
  scalar_values[ops::kBiasCorrection2] = 0.0975;
  scalar_values[ops::kClipScale] = 0.5;
  for (const bool decoupled : {true, false}) {
    for (const int64_t count : {1, 3, 4, 1023, 1024, 1025, 5000}) {
      const Twin scalars = filled(DType::kF32, {ops::kStepScalarCount}, 0);
      for (int i = 0; i < ops::kStepScalarCount; ++i) test::write_value(scalars.cpu, i, scalar_values[i]);
      refresh(scalars);
      const Twin master = random(DType::kF32, {count}), grad = random(DType::kF32, {count});
      const Twin moment1 = random(DType::kF32, {count}), moment2 = filled(DType::kF32, {count}, 0.25);
      const Twin copy = garbage(DType::kBF16, {count});
      const auto args = [&](auto side) {
        return ops::AdamUpdate{.master = master.*side,
                               .moment1 = moment1.*side,
                               .moment2 = moment2.*side,
                               .grad = grad.*side,
                               .scalars = scalars.*side,
                               .copy = copy.*side,
                               .beta1 = 0.9f,
                               .beta2 = 0.95f,
                               .eps = 1e-6f,
                               .weight_decay = 0.1f,
                               .decoupled = decoupled};
      };
      const Twin updated[] = {master, moment1, moment2, copy};
      expect_same_bytes_in_every_order({master.emulated, moment1.emulated, moment2.emulated, copy.emulated}, [&] {
        for (const Twin& tensor : updated) refresh(tensor);
        ops::adam_update(emulated(), args(&Twin::emulated));
      });
      ops::adam_update(cpu(), args(&Twin::cpu));
      expect_agreement("moment1", moment1, 0, 8 * 8 * kRoundoff);
      expect_agreement("moment2", moment2, 8 * kRoundoff, 0);
      expect_agreement("master", master, 4 * kRoundoff, 1e-3 * 20 * 16 * kRoundoff);
      expect_agreement("copy", copy, 2 * 0x1p-8, 1e-6);
    }
  }
}

TEST_F(Kernels, AdamUpdateWorksOnUnalignedParts) {
  const Twin scalars = filled(DType::kF32, {ops::kStepScalarCount}, 0);
  for (int i = 0; i <= ops::kClipScale; ++i) test::write_value(scalars.cpu, i, 0.5);
  refresh(scalars);
  const Twin tensors[] = {random(DType::kF32, {77}), random(DType::kF32, {77}), filled(DType::kF32, {77}, 1),
                          random(DType::kF32, {77})};
  const auto update = [&](Context& ctx, auto side) {
    const auto part = [&](const Twin& twin) { return (twin.*side).view({77, 1}).slice_rows(1, 75).view({75}); };
    ops::adam_update(ctx, {.master = part(tensors[0]),
                           .moment1 = part(tensors[1]),
                           .moment2 = part(tensors[2]),
                           .grad = part(tensors[3]),
                           .scalars = scalars.*side,
                           .beta1 = 0.9f,
                           .beta2 = 0.95f,
                           .eps = 1e-6f,
                           .weight_decay = 0});
  };
  update(cpu(), &Twin::cpu);
  update(emulated(), &Twin::emulated);
  expect_agreement("master", tensors[0], 8 * kRoundoff, 8 * kRoundoff);
}

TEST_F(Kernels, ARefusedStepChangesNothing) {
  const Twin scalars = filled(DType::kF32, {ops::kStepScalarCount}, 1);
  const Twin tensors[] = {random(DType::kF32, {9}), random(DType::kF32, {9}), random(DType::kF32, {9})};
  const Twin grad = filled(DType::kF32, {9}, std::numeric_limits<double>::quiet_NaN());
  ops::adam_update(emulated(), {.master = tensors[0].emulated,
                                .moment1 = tensors[1].emulated,
                                .moment2 = tensors[2].emulated,
                                .grad = grad.emulated,
                                .scalars = scalars.emulated,
                                .beta1 = 0.9f,
                                .beta2 = 0.95f,
                                .eps = 1e-6f,
                                .weight_decay = 0.1f});
  for (const Twin& tensor : tensors) expect_agreement("unchanged", tensor, 0, 0);
}

TEST_F(Kernels, CastAgreesWithTheCpuBitForBit) {
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

TEST_F(Kernels, RotaryAgreesWithTheCpuBothWays) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool inverse : {false, true}) {
      for (const auto& [rows, heads, half] : {std::array<int64_t, 3>{1, 1, 1}, {37, 3, 7}, {9, 2, 32}, {0, 2, 4}}) {
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

TEST_F(Kernels, ScratchIsGivenBack) {
  const Twin x = random(DType::kF32, {20, 12}), weight = random(DType::kF32, {12}),
             inv_rms = garbage(DType::kF32, {20});
  const size_t before = emulated().step().used_bytes();
  ops::rms_norm_backward(emulated(),
                         {x.emulated, weight.emulated, x.emulated, x.emulated, inv_rms.emulated, weight.emulated});
  EXPECT_EQ(emulated().step().used_bytes(), before);
}

}  // namespace
}  // namespace mhmoe
