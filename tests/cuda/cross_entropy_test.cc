#include "ops/cross_entropy.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using test::kRoundoff;
using test::Twin;
using CrossEntropyKernels = test::EmulatedTest;

// Vocabularies around a pack of 8 and around the 4096 that a block of 512 threads has packs for.
constexpr std::array<int64_t, 2> kShapes[] = {{0, 8},   {1, 1},    {3, 7},    {5, 8},
                                              {2, 515}, {3, 4096}, {2, 4104}, {2, 5001}};

TEST_F(CrossEntropyKernels, AgreesWithTheCpuAlsoInPlaceAndWithoutGradient) {
  const float scale = 0.37f;
  const Twin scales = filled(DType::kF32, {1}, scale);
  for (const auto& [rows, vocabulary] : kShapes) {
    unalign(vocabulary == 4104);
    const Twin logits = random(DType::kF32, {rows, vocabulary}, 3);
    std::vector<double> ids;
    for (int64_t n = 0; n < rows; ++n) ids.push_back(n == 1 ? -1 : static_cast<double>((n + 1) * 6007 % vocabulary));
    const Twin targets = given(DType::kI32, {rows}, ids);
    for (const int kind : {0, 1, 2, 3}) {  // without gradient, in f32, in bf16, in place (last: it changes the logits)
      const Twin loss = garbage(DType::kF32, {rows});
      const Twin grad = kind == 3 ? logits : garbage(kind == 2 ? DType::kBF16 : DType::kF32, {rows, vocabulary});
      const auto args = [&](Tensor Twin::*side) {
        return ops::CrossEntropy{loss.*side, logits.*side, targets.*side, kind == 0 ? Tensor{} : grad.*side,
                                 scales.*side};
      };
      expect_same_bytes_in_every_order({loss.emulated, grad.emulated}, [&] {
        if (kind == 3) refresh(logits);
        ops::cross_entropy(emulated(), args(&Twin::emulated));
      });
      ops::cross_entropy(cpu(), args(&Twin::cpu));
      // A sum of exponentials errs by a few roundings each; its logarithm by as much absolutely.
      expect_agreement(fmt::format("loss of {} x {}", rows, vocabulary), loss, 2 * kRoundoff, 32 * kRoundoff);
      if (kind == 0) continue;
      expect_agreement("grad", grad, test::unit_roundoff(grad.cpu.dtype) + 32 * kRoundoff, scale * 2 * kRoundoff);
    }
  }
}

TEST_F(CrossEntropyKernels, MinusInfinityCostsNothingAndNotANumberShows) {
  const double none = -std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> first(600, none), second(600, 0.5);
  first[599] = 2, second[7] = nan;
  first.insert(first.end(), second.begin(), second.end());
  const Twin logits = given(DType::kF32, {2, 600}, first), targets = given(DType::kI32, {2}, {599, 3});
  const Twin loss = garbage(DType::kF32, {2}), grad = garbage(DType::kF32, {2, 600});
  ops::cross_entropy(emulated(), {loss.emulated, logits.emulated, targets.emulated, grad.emulated});
  const Tensor got = downloaded(loss.emulated);
  EXPECT_EQ(test::read_value(got, 0), 0);
  EXPECT_TRUE(std::isnan(test::read_value(got, 1)));
  test::expect_equal("grad", downloaded(grad.emulated.slice(0, 600)), std::vector<double>(600, 0));
}

}  // namespace
}  // namespace mhmoe
