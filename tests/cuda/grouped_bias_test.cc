// The gradients of the experts' biases and gates against the CPU.
#include <numeric>

#include "cuda/grouped_test.h"

namespace mhmoe {
namespace {

using test::Groups;
using test::kLayouts;
using test::kRoundoff;
using test::Layout;
using test::Twin;

using GroupedBias = test::GroupedTest;

TEST_F(GroupedBias, GradientsAgreeWithTheCpu) {
  for (const Layout& layout : kLayouts) {
    for (const auto& [dtype, n] :
         {std::pair{DType::kF32, 33}, std::pair{DType::kBF16, 64}, std::pair{DType::kBF16, 264}}) {
      const auto experts = static_cast<int64_t>(layout.rows.size());
      const Groups rows = groups(layout);
      std::vector<double> assignment(static_cast<size_t>(rows.rows));
      std::iota(assignment.rbegin(), assignment.rend(), 1);
      for (const int64_t r : rows.without_use) assignment[static_cast<size_t>(r)] = -1;
      const Twin grad_out = random_rows(dtype, rows, n), bias = random(DType::kF32, {experts, n});
      const Twin gate = random(DType::kF32, {rows.rows + 1}), grad_gate = random(DType::kF32, {rows.rows + 1});
      const Twin grad_bias = random(DType::kF32, {experts, n});
      const Twin row_assignment = given(DType::kI32, {rows.rows}, assignment);
      for (const bool by_row : {false, true}) {
        const int64_t gates = rows.rows + (by_row ? 0 : 1);
        const auto run = [&](Context& ctx, const ops::RowGroups& row_groups, Tensor Twin::*on) {
          ops::grouped_bias_backward(ctx,
                                     {grad_bias.*on, grad_out.*on, row_groups, bias.*on, (gate.*on).slice(0, gates),
                                      (grad_gate.*on).slice(0, gates), by_row ? Tensor() : row_assignment.*on});
        };
        expect_same_bytes_in_every_order({grad_bias.emulated, grad_gate.emulated}, [&] {
          for (const Twin& sum : {grad_bias, grad_gate}) refresh(sum);
          run(emulated(), rows.emulated, &Twin::emulated);
        });
        run(cpu(), rows.cpu, &Twin::cpu);
        expect_agreement("bias gradient", grad_bias, 0, 302.0 * kRoundoff * 4 * 302);
        expect_agreement("gate gradient", grad_gate, 0, 2.0 * (n + 2.0) * kRoundoff * 4 * (n + 2.0));
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe
