#include "ops/router.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using ops::BalanceCounts;
using test::kRoundoff;
using test::Twin;
using RouterKernels = test::EmulatedTest;

struct RouterTwins {
  Twin probabilities, expert_index, gate_weight, share, balance_loss;
};

TEST_F(RouterKernels, ForwardAgreesWithTheCpu) {
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

TEST_F(RouterKernels, BackwardAgreesWithTheCpuAlsoInPlace) {
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

TEST_F(RouterKernels, OfNoRowsGivesZeroes) {
  const Twin none = filled(DType::kF32, {0, 5}, 0), index = filled(DType::kI32, {0, 2}, 0);
  const Twin gates = filled(DType::kF32, {0, 2}, 0), share = garbage(DType::kF32, {5});
  const Twin loss = garbage(DType::kF32, {1});
  ops::router_forward(emulated(), {none.emulated, index.emulated, gates.emulated, share.emulated, loss.emulated,
                                   none.emulated, true, BalanceCounts::kFirstChoice});
  test::expect_equal("share", downloaded(share.emulated), std::vector<double>(5, 0));
  test::expect_equal("balance_loss", downloaded(loss.emulated), std::vector<double>(1, 0));
}

}  // namespace
}  // namespace mhmoe
