#include "ops/adam.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
using test::Twin;
using AdamKernels = test::EmulatedTest;

TEST_F(AdamKernels, ClipScaleAgreesWithTheCpuAndRefusesWhatIsNotFinite) {
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

TEST_F(AdamKernels, UpdateAgreesWithTheCpu) {
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

TEST_F(AdamKernels, UpdateWorksOnUnalignedParts) {
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

TEST_F(AdamKernels, ARefusedStepChangesNothing) {
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

}  // namespace
}  // namespace mhmoe
