// The experts' products: tensor cores and plain kernels against the CPU.
#include <algorithm>

#include "cuda/grouped_test.h"
#include "ops/grouped_matmul.h"

namespace mhmoe {
namespace {

using test::Groups;
using test::kLayouts;
using test::kRoundoff;
using test::Layout;
using test::Twin;

struct Product {
  int64_t inner, width;
  DType in, out;
  bool transpose_weight, bias;
};

constexpr Product bf16_product(int64_t inner, int64_t width, DType out, bool transpose, bool bias) {
  return {inner, width, DType::kBF16, out, transpose, bias};
}

class GroupedKernels : public test::GroupedTest {
 protected:
  // Runs `op` in every order, and with cp.async's bytes as early as may be: the same bytes.
  template <class Op>
  void expect_same_bytes(const Tensor& output, Op&& op) {
    expect_same_bytes_in_every_order({output}, op);
    const Tensor late = downloaded(output);
    const test::WithCopies with("issue");
    op();
    test::expect_equal("copies done at issue", downloaded(output), test::values(late));
  }

  // With a capacity, rows of no expert become numbers that nobody asks about.
  void expect_numbers_without_use(const Twin& out, const Groups& groups) {
    if (groups.cpu.capacity == 0) return;
    const Tensor found = downloaded(out.emulated);
    for (const int64_t r : groups.without_use) {
      for (int64_t i = r * out.cpu.cols(); i < (r + 1) * out.cpu.cols(); ++i) {
        EXPECT_TRUE(std::isfinite(test::read_value(found, i)));
        test::write_value(out.cpu, i, test::read_value(found, i));
      }
    }
  }

  // Both ways that products run, where there are two.
  template <class Check>
  void for_each_way(const Layout& layout, Check&& check) {
    for (const bool batched : {false, true}) {
      if (batched && layout.capacity == 0) continue;
      const test::WithMode with("MHMOE_EXPERT_PRODUCTS", batched ? "strided_batches" : "own_kernels");
      batched_ = batched;
      check();
    }
    batched_ = false;
  }

  void check_product(const Layout& layout, const Product& product) {
    const auto experts = static_cast<int64_t>(layout.rows.size());
    const auto& [inner, width, in, out_type, transpose, with_bias] = product;
    const Groups rows = groups(layout);
    const Twin a = random_rows(in, rows, inner);
    const Twin weight = random(in, {experts, transpose ? width : inner, transpose ? inner : width});
    const Twin bias = with_bias ? random(DType::kF32, {experts, width}) : Twin{};
    const Twin out = filled(out_type, {rows.rows, width}, 3);     // rows of no expert keep it
    expect_same_bytes(out.emulated, [&, transpose = transpose] {  // clang captures no structured binding by itself
      refresh(out);
      ops::grouped_matmul(emulated(),
                          {out.emulated, a.emulated, weight.emulated, rows.emulated, transpose, bias.emulated});
    });
    ops::grouped_matmul(cpu(), {out.cpu, a.cpu, weight.cpu, rows.cpu, transpose, bias.cpu});
    expect_numbers_without_use(out, rows);
    // Both sum up at most `inner` + 1 terms, of which hardly any is beyond 16, and round once.
    const auto terms = static_cast<double>(inner + 1);
    expect_agreement(fmt::format("[{}] -> [{}], {} to {}, transposed {}, bias {}", inner, width, to_string(in),
                                 to_string(out_type), transpose, with_bias),
                     out, 2 * test::unit_roundoff(out_type), 2 * terms * kRoundoff * 4 * terms);
  }

  void check_weight_grad(const Layout& layout, DType dtype, int64_t n, int64_t k) {
    const auto experts = static_cast<int64_t>(layout.rows.size());
    const Groups rows = groups(layout);
    const Twin grad_out = random_rows(dtype, rows, n), x = random_rows(dtype, rows, k);
    const Twin grad = random(DType::kF32, {experts, n, k});
    expect_same_bytes(grad.emulated, [&] {
      refresh(grad);
      ops::grouped_weight_grad(emulated(), {grad.emulated, grad_out.emulated, x.emulated, rows.emulated});
    });
    ops::grouped_weight_grad(cpu(), {grad.cpu, grad_out.cpu, x.cpu, rows.cpu});
    const double terms = layout.rows.empty() ? 0.0 : static_cast<double>(std::ranges::max(layout.rows) + 1);
    expect_agreement(fmt::format("weight gradient [{}, {}] of {}", n, k, to_string(dtype)), grad, 0,
                     2 * terms * kRoundoff * 4 * terms);
  }

  void check_swiglu(const Layout& layout, int64_t inner, int64_t hidden, bool with_bias) {
    const auto experts = static_cast<int64_t>(layout.rows.size());
    const Groups rows = groups(layout);
    const Twin a = random_rows(DType::kBF16, rows, inner);
    const Twin weight = random(DType::kBF16, {experts, 2 * hidden, inner});
    const Twin bias = with_bias ? random(DType::kF32, {experts, 2 * hidden}) : Twin{};
    const Twin pre = garbage(DType::kBF16, {rows.rows, 2 * hidden});
    const Twin fused_pre = garbage(DType::kBF16, {rows.rows, 2 * hidden});
    const Twin activated = garbage(DType::kBF16, {rows.rows, hidden});
    const Twin fused_activated = garbage(DType::kBF16, {rows.rows, hidden});
    const ops::GroupedMatmul product = {pre.emulated, a.emulated, weight.emulated, rows.emulated, true, bias.emulated};
    ops::grouped_matmul(emulated(), product);
    ops::activation_forward(emulated(), {activated.emulated, pre.emulated, ops::Activation::kSwiglu});
    ops::GroupedMatmul fused = product;
    fused.out = fused_pre.emulated, fused.activated = fused_activated.emulated;
    expect_same_bytes(fused_activated.emulated, [&] { ops::grouped_matmul(emulated(), fused); });
    const std::string what = fmt::format("[{}] -> [{}], bias {}", inner, hidden, with_bias);
    test::expect_equal(what + ", pre", downloaded(fused_pre.emulated), test::values(downloaded(pre.emulated)));
    test::expect_equal(what + ", activated", downloaded(fused_activated.emulated),
                       test::values(downloaded(activated.emulated)));
  }
};

TEST_F(GroupedKernels, EveryLayoutOfRowsOnTensorCores) {
  for (const Layout& layout : kLayouts) {
    for_each_way(layout, [&] {
      for (const bool transpose : {true, false}) {
        check_product(layout, bf16_product(40, 136, DType::kBF16, transpose, false));
      }
      check_weight_grad(layout, DType::kBF16, 136, 40);
    });
  }
  check_product(test::many_experts(77), bf16_product(16, 8, DType::kF32, true, false));
  check_weight_grad(test::many_experts(77), DType::kBF16, 8, 16);
}

// Terms around a stage (32) and the pipeline's depth, columns around a tile (128).
TEST_F(GroupedKernels, WidthsOnTensorCores) {
  const Layout layout{{9, 0, 131}, 1};
  const std::pair<int64_t, int64_t> shapes[] = {{8, 8}, {32, 120}, {96, 128}, {104, 16}, {200, 264}};
  for (const auto& [inner, width] : shapes) {
    check_product(layout, bf16_product(inner, width, DType::kBF16, true, true));
    check_product(layout, bf16_product(inner, width, DType::kF32, true, true));
    check_product(layout, bf16_product(inner, width, DType::kF32, false, false));
    check_weight_grad(layout, DType::kBF16, width, inner);
  }
}

// The fused kernel gives the bits of the product and the activation by themselves. Units around a block's 64.
TEST_F(GroupedKernels, SwigluWithTheUpProjection) {
  const Layout layouts[] = {{{9, 0, 131}, 0}, {{0, 130, 1}, 0, 130}};
  const std::pair<int64_t, int64_t> shapes[] = {{40, 8}, {8, 64}, {72, 72}};
  for (const Layout& layout : layouts) {
    for_each_way(layout, [&] {
      for (const auto& [inner, hidden] : shapes) check_swiglu(layout, inner, hidden, hidden == 72);
      check_swiglu(layout, 40, 12, false);
    });
  }
}

TEST_F(GroupedKernels, EveryLayoutOfRowsWithoutTensorCores) {
  for (const Layout& layout : kLayouts) {
    for_each_way(layout, [&] {
      for (const bool transpose : {true, false}) {
        check_product(layout, {21, 67, DType::kF32, DType::kF32, transpose, transpose});
        check_product(layout, {21, 67, DType::kF32, DType::kF32, transpose, false});
      }
      check_weight_grad(layout, DType::kF32, 67, 21);
    });
  }
  check_product(test::many_experts(40), {5, 3, DType::kF32, DType::kF32, true, false});
  check_weight_grad(test::many_experts(40), DType::kF32, 3, 5);
}

TEST_F(GroupedKernels, Bf16OfAnyWidthAndAlignment) {
  const Layout layout{{9, 0, 70}, 1};
  const std::pair<int64_t, int64_t> shapes[] = {{1, 1}, {15, 64}, {16, 63}, {33, 65}};
  for (const bool unaligned : {false, true}) {
    unalign(unaligned);
    for (const auto& [inner, width] : shapes) {
      check_product(layout, bf16_product(inner, width, DType::kBF16, true, true));
      check_product(layout, bf16_product(inner, width, DType::kF32, false, false));
      check_weight_grad(layout, DType::kBF16, width, inner);
    }
  }
  unalign(false);
}

// A later token, routed to the same expert, must not change an earlier token's result.
TEST_F(GroupedKernels, ARowsBitsDependNeitherOnItsPlaceNorOnTheNumberOfRows) {
  const int64_t most = 150, k = 72, n = 24;
  const Twin a = random(DType::kBF16, {most, k}), weight = random(DType::kBF16, {1, n, k});
  const auto product = [&](int64_t first, int64_t count) {
    const Groups rows = groups({{count}});
    const Twin out = garbage(DType::kBF16, {count, n});
    ops::grouped_matmul(emulated(),
                        {out.emulated, a.emulated.slice_rows(first, count), weight.emulated, rows.emulated, true});
    return downloaded(out.emulated);
  };
  const Tensor all = product(0, most);
  for (const int64_t count : {1, 7, 8, 16, 127, 128, 129}) {
    test::expect_equal("first rows", product(0, count), test::values(all.slice_rows(0, count)));
    test::expect_equal("last rows", product(most - count, count), test::values(all.slice_rows(most - count, count)));
  }
}

TEST_F(GroupedKernels, AnUnknownWayToRunProductsIsRefused) {
  const test::WithMode with("MHMOE_EXPERT_PRODUCTS", "fast");
  const Groups rows = groups({{1}});
  const Tensor a = random(DType::kF32, {1, 8}).emulated, weight = random(DType::kF32, {1, 8, 8}).emulated;
  try {
    ops::grouped_matmul(emulated(), {a, a, weight, rows.emulated, true});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "MHMOE_EXPERT_PRODUCTS=fast: allowed: auto, own_kernels, strided_batches");
  }
}

}  // namespace
}  // namespace mhmoe
