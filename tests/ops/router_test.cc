#include "ops/router.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "ops/complex_step.h"
#include "ops/op_test.h"

namespace mhmoe {
namespace {

using ops::BalanceCounts;
using test::Complex;

struct Variant {
  bool normalize;
  BalanceCounts counts;
};
constexpr Variant kVariants[] = {{false, BalanceCounts::kFirstChoice},
                                 {true, BalanceCounts::kFirstChoice},
                                 {false, BalanceCounts::kAllChoices},
                                 {true, BalanceCounts::kAllChoices}};

template <class T>
std::vector<T> softmax(const std::vector<T>& logits) {
  T sum = 0;
  for (const T& logit : logits) sum += std::exp(logit);
  std::vector<T> result;
  for (const T& logit : logits) result.push_back(std::exp(logit) / sum);
  return result;
}

class Router : public test::OpTest {
 protected:
  ops::RouterForward outputs(const Tensor& logits, int64_t k, const Variant& variant) {
    const int64_t rows = logits.rows(), experts = logits.cols();
    return {garbage(DType::kF32, {rows, experts}),
            garbage(DType::kI32, {rows, k}),
            garbage(DType::kF32, {rows, k}),
            garbage(DType::kF32, {experts}),
            garbage(DType::kF32, {1}),
            logits,
            variant.normalize,
            variant.counts};
  }
  ops::RouterForward forward(const Tensor& logits, int64_t k, const Variant& variant) {
    const ops::RouterForward args = outputs(logits, k, variant);
    ops::router_forward(ctx(), args);
    return args;
  }
};

TEST_F(Router, ForwardIsPlainLoops) {
  for (const Variant& variant : kVariants) {
    for (const auto& [rows, experts, k] : {std::array{1, 1, 1}, {1, 5, 2}, {37, 8, 8}, {300, 33, 3}}) {
      const Tensor logits = random(DType::kF32, {rows, experts}, 2);
      const ops::RouterForward got = forward(logits, k, variant);
      std::vector<double> probabilities, share(experts, 0), index, gates, mean(experts, 0);
      const int counted = variant.counts == BalanceCounts::kFirstChoice ? 1 : k;
      for (int s = 0; s < rows; ++s) {
        const auto p = softmax(test::values(logits.slice_rows(s, 1)));
        std::vector<int> order(experts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return p[a] > p[b]; });
        double chosen = 0;
        for (int j = 0; j < k; ++j) chosen += p[order[j]];
        for (int j = 0; j < k; ++j) index.push_back(order[j]);
        for (int j = 0; j < k; ++j) gates.push_back(p[order[j]] / (variant.normalize ? chosen : 1));
        for (int j = 0; j < counted; ++j) share[order[j]] += 1.0 / (rows * counted);
        for (int e = 0; e < experts; ++e) mean[e] += p[e] / rows;
        probabilities.insert(probabilities.end(), p.begin(), p.end());
      }
      const double loss = experts * std::inner_product(share.begin(), share.end(), mean.begin(), 0.0);
      test::expect_close("probabilities", got.probabilities, probabilities, 1e-6);
      test::expect_equal("expert_index", got.expert_index, index);
      test::expect_close("gate_weight", got.gate_weight, gates, 1e-6);
      test::expect_close("share", got.share, share, 1e-7);
      test::expect_close("balance_loss", got.balance_loss, std::vector<double>{loss}, 1e-6 * loss);
    }
  }
}

TEST_F(Router, ProbabilitiesSumToOneAndChoicesDescend) {
  const int64_t rows = 200, experts = 31, k = 6;
  const ops::RouterForward got =
      forward(random(DType::kF32, {rows, experts}, 20), k, {true, BalanceCounts::kAllChoices});
  for (int64_t s = 0; s < rows; ++s) {
    const auto p = test::values(got.probabilities.slice_rows(s, 1));
    const auto gates = test::values(got.gate_weight.slice_rows(s, 1));
    EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 4 * 0x1p-24);
    EXPECT_NEAR(std::accumulate(gates.begin(), gates.end(), 0.0), 1, 4 * 0x1p-24);
    EXPECT_TRUE(std::is_sorted(gates.rbegin(), gates.rend())) << "row " << s;
  }
  const auto share = test::values(got.share);
  EXPECT_NEAR(std::accumulate(share.begin(), share.end(), 0.0), 1, 1e-6);
}

TEST_F(Router, TiesGoToTheLowerIndexAndExtremeLogitsStayFinite) {
  const double big = 3e38;
  const Tensor logits = given(DType::kF32, {4, 4}, {1, 1, 1, 1, 0, 2, 0, 2, -big, big, big, -big, -100, -100, -300, 0});
  const ops::RouterForward got = forward(logits, 3, {true, BalanceCounts::kFirstChoice});
  test::expect_equal("expert_index", got.expert_index, std::vector<double>{0, 1, 2, 1, 3, 0, 1, 2, 0, 3, 0, 1});
  for (const double gate : test::values(got.gate_weight)) EXPECT_TRUE(gate >= 0 && gate <= 1) << gate;
}

// Denormal differences vanish in the softmax: probabilities are equal, so the lower index comes first.
TEST_F(Router, SignedZerosAndDenormalsAreTies) {
  const double tiny = 1e-42;
  const Tensor logits = given(DType::kF32, {4, 4},
                              {-0.0, 0.0, -0.0, 0.0,        //
                               0.0, tiny, -tiny, 2 * tiny,  //
                               -1, -0.0, 0.0, tiny,         //
                               tiny, 1, 1, -0.0});
  const ops::RouterForward got = forward(logits, 3, {true, BalanceCounts::kFirstChoice});
  test::expect_equal("expert_index", got.expert_index, std::vector<double>{0, 1, 2, 0, 1, 2, 1, 2, 3, 1, 2, 0});
  for (int64_t row : {0, 1}) {
    test::expect_equal("equal", got.probabilities.slice_rows(row, 1), std::vector<double>(4, 0.25));
  }
}

TEST_F(Router, ChoicesStayDifferentExpertsWhenLogitsAreNotNumbers) {
  const ops::RouterForward got = forward(garbage(DType::kF32, {3, 5}), 4, {false, BalanceCounts::kFirstChoice});
  test::expect_equal("expert_index", got.expert_index, std::vector<double>{0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3});
}

TEST_F(Router, BalanceLossIsOneWhenEvenAndTheNumberOfExpertsWhenAllChooseOne) {
  const int64_t experts = 4;
  const Tensor even = filled(DType::kF32, {8, experts}, 0);
  for (int64_t s = 0; s < 8; ++s) test::host<float>(even)[s * experts + s % experts] = 3;
  for (const Variant& variant : kVariants) {
    test::expect_close("even", forward(even, 1, variant).balance_loss, std::vector<double>{1}, 1e-6);
    const Tensor one = filled(DType::kF32, {8, experts}, -90);
    for (int64_t s = 0; s < 8; ++s) test::host<float>(one)[s * experts + 2] = 90;
    test::expect_close("one", forward(one, 1, variant).balance_loss, std::vector<double>{4}, 1e-6);
  }
}

TEST_F(Router, BackwardIsTheComplexStepWithChoicesHeldFixed) {
  for (const Variant& variant : kVariants) {
    for (const auto& [rows, experts, k] : {std::array{1, 1, 1}, {3, 2, 1}, {4, 9, 3}, {2, 5, 5}}) {
      const float balance_scale = 0.7f;
      const Tensor logits = random(DType::kF32, {rows, experts}, 1.5);
      const ops::RouterForward saved = forward(logits, k, variant);
      const Tensor grad_gate = random(DType::kF32, {rows, k});
      const auto index = test::values(saved.expert_index), share = test::values(saved.share);
      const auto upstream = test::values(grad_gate);
      const auto objective = [&](const std::vector<Complex>& point) {
        Complex sum = 0;
        for (int s = 0; s < rows; ++s) {
          const auto p = softmax(std::vector<Complex>(point.begin() + s * experts, point.begin() + (s + 1) * experts));
          Complex chosen = variant.normalize ? 0 : 1;
          for (int j = 0; j < k && variant.normalize; ++j) chosen += p[static_cast<size_t>(index[s * k + j])];
          for (int j = 0; j < k; ++j) sum += upstream[s * k + j] * p[static_cast<size_t>(index[s * k + j])] / chosen;
          for (int e = 0; e < experts; ++e) sum += double{balance_scale} * experts * share[e] * p[e] / double(rows);
        }
        return sum;
      };
      const auto expected = test::complex_step(test::values(logits), objective);
      const Tensor grad_logits = garbage(DType::kF32, {rows, experts});
      ops::router_backward(ctx(), {grad_logits, grad_gate, saved.probabilities, saved.expert_index, saved.share,
                                   variant.normalize, balance_scale});
      test::expect_close("grad_logits", grad_logits, expected, 3e-6);
      // The same in place of the probabilities.
      ops::router_backward(ctx(), {saved.probabilities, grad_gate, saved.probabilities, saved.expert_index, saved.share,
                                   variant.normalize, balance_scale});
      test::expect_equal("in place", saved.probabilities, test::values(grad_logits));
    }
  }
}

TEST_F(Router, HasTheSameBitsInPlaceAndAtAnyNumberOfThreads) {
  const Tensor logits = random(DType::kF32, {2000, 12});
  const Variant variant{true, BalanceCounts::kAllChoices};
  const ops::RouterForward first = forward(logits, 2, variant);
  for (const int threads : {1, 2, 7}) {
    const ThreadCount with(threads);
    ops::RouterForward again = outputs(copy_of(logits), 2, variant);
    again.probabilities = again.logits;
    ops::router_forward(ctx(), again);
    test::expect_equal("probabilities", again.probabilities, test::values(first.probabilities));
    test::expect_equal("share", again.share, test::values(first.share));
    test::expect_equal("balance_loss", again.balance_loss, test::values(first.balance_loss));
  }
}

TEST_F(Router, NoRowsGiveZeroShareAndLoss) {
  const ops::RouterForward got = forward(zeros(DType::kF32, {0, 3}), 2, {true, BalanceCounts::kFirstChoice});
  test::expect_equal("share", got.share, std::vector<double>{0, 0, 0});
  test::expect_equal("balance_loss", got.balance_loss, std::vector<double>{0});
  ops::router_backward(ctx(), {got.logits, got.gate_weight, got.probabilities, got.expert_index, got.share, true, 1});
}

}  // namespace
}  // namespace mhmoe
