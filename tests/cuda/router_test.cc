#include "ops/router.h"

#include <array>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

using ops::BalanceCounts;
using test::kRoundoff;
using test::Twin;

struct RouterTwins {
  Twin probabilities, expert_index, gate_weight, share, balance_loss, logits;

  ops::RouterForward forward(bool normalize, BalanceCounts counts, Tensor Twin::*side) const {
    return {probabilities.*side, expert_index.*side, gate_weight.*side, share.*side,
            balance_loss.*side,  logits.*side,       normalize,         counts};
  }
};

class RouterKernels : public test::EmulatedTest {
 protected:
  RouterTwins tensors_for(int64_t rows, int64_t experts, int64_t k) {
    return {garbage(DType::kF32, {rows, experts}),
            garbage(DType::kI32, {rows, k}),
            garbage(DType::kF32, {rows, k}),
            garbage(DType::kF32, {experts}),
            garbage(DType::kF32, {1}),
            random(DType::kF32, {rows, experts}, 2)};
  }
  void expect_agreement_of(const RouterTwins& out) {
    const double relative = (static_cast<double>(out.share.cpu.count()) + 32) * kRoundoff;
    expect_agreement("probabilities", out.probabilities, relative, 0);
    expect_agreement("expert_index", out.expert_index, 0, 0);
    expect_agreement("gate_weight", out.gate_weight, 2 * relative, 0);
    expect_agreement("share", out.share, 4 * kRoundoff, 0);
    expect_agreement("balance_loss", out.balance_loss, relative + 128 * kRoundoff, 0);
  }
};

// Rows around a chunk of 64; experts around a tile of 32, and so many that a block has room for two rows and for one;
// more choices than lanes.
TEST_F(RouterKernels, ForwardAgreesWithTheCpu) {
  for (const auto& [rows, experts, k] : {std::array<int64_t, 3>{1, 1, 1},
                                         {1, 5, 2},
                                         {9, 8, 8},
                                         {63, 31, 3},
                                         {65, 33, 33},
                                         {129, 64, 1},
                                         {2, 4096, 3},
                                         {2, 9000, 34}}) {
    SCOPED_TRACE(fmt::format("{} rows, {} experts, {} choices", rows, experts, k));
    for (const bool normalize : {false, true}) {
      for (const auto counts : {BalanceCounts::kFirstChoice, BalanceCounts::kAllChoices}) {
        const RouterTwins out = tensors_for(rows, experts, k);
        ops::router_forward(cpu(), out.forward(normalize, counts, &Twin::cpu));
        expect_same_bytes_in_every_order(
            {out.probabilities.emulated, out.expert_index.emulated, out.gate_weight.emulated, out.share.emulated,
             out.balance_loss.emulated},
            [&] { ops::router_forward(emulated(), out.forward(normalize, counts, &Twin::emulated)); });
        expect_agreement_of(out);
      }
    }
  }
}

TEST_F(RouterKernels, ForwardCutsManyRowsIntoLargerChunks) {
  const RouterTwins out = tensors_for(512 * 64 + 3, 2, 1);
  ops::router_forward(cpu(), out.forward(false, BalanceCounts::kFirstChoice, &Twin::cpu));
  ops::router_forward(emulated(), out.forward(false, BalanceCounts::kFirstChoice, &Twin::emulated));
  // Sums of a chunk's 65 rows in a few warps, then of 512 chunks in 16 segments.
  expect_agreement("balance_loss", out.balance_loss, 64 * kRoundoff, 0);
  expect_agreement("share", out.share, 4 * kRoundoff, 0);
  expect_agreement("expert_index", out.expert_index, 0, 0);
}

TEST_F(RouterKernels, BackwardAgreesWithTheCpuAlsoInPlace) {
  for (const bool normalize : {false, true}) {
    for (const auto& [rows, experts, k] :
         {std::array<int64_t, 3>{1, 5, 2}, {9, 8, 8}, {130, 33, 3}, {9, 70, 40}, {3, 30000, 2}}) {
      const RouterTwins in = tensors_for(rows, experts, k);
      const Twin grad_gate = random(DType::kF32, {rows, k});
      ops::router_forward(cpu(), in.forward(normalize, BalanceCounts::kAllChoices, &Twin::cpu));
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
