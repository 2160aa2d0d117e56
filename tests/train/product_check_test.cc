#include "train/product_check.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cpu/context.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

ProductShapes shapes_of(const RunConfig& config, DType compute = DType::kF32, const comm::Layout& layout = {}) {
  ProductShapes shapes;
  measure_memory(config, DeviceKind::kCpu, &cpu::backend().kernels, compute, layout, {}, &shapes);
  return shapes;
}

// What checking a tiny model's products with two threads says where the CPU's kernels are these.
std::string refusal(const ops::KernelTable& kernels) {
  const ThreadCount two(2);
  const auto ctx = cpu::create_context(kernels);
  try {
    check_products(*ctx, shapes_of(tiny_config()));
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    return error.what();
  }
  return "accepted";
}

void add_an_ulp(const Tensor& to) {
  auto* values = to.as<float>();
  values[to.count() - 1] = std::nextafter(values[to.count() - 1], 9.0F);
}

bool mentions(const ProductShapes& shapes, const std::string& text) {
  return std::ranges::any_of(shapes.all(), [&](const auto& product) { return product.first == text; });
}

TEST(ProductCheck, TakesTheShapesThatLayersDispatch) {
  const ProductShapes shapes = shapes_of(tiny_config());
  // 16 tokens of 16: their logits, the table's gradient, a router's logits of 32 sub-tokens.
  EXPECT_TRUE(mentions(shapes, "matmul f32[16, 32] = f32[16, 16] x f32[32, 16]^T"));
  EXPECT_TRUE(mentions(shapes, "matmul f32[32, 16] = f32[16, 32]^T x f32[16, 16] + addend"));
  EXPECT_TRUE(mentions(shapes, "matmul f32[32, 4] = f32[32, 8] x f32[4, 8]^T"));
  EXPECT_TRUE(mentions(shapes, "grouped_matmul f32[rows, 8] = f32[rows, 12] x f32[8, 12]^T"));
  EXPECT_TRUE(mentions(shapes, "grouped_matmul f32[rows, 12] = f32[rows, 8] x f32[8, 12]"));
  EXPECT_TRUE(mentions(shapes, "grouped_weight_grad f32[8, 12] += f32[rows, 8]^T x f32[rows, 12]"));
  EXPECT_TRUE(mentions(shapes, "attention_forward of 2 x 8 tokens, 2 heads, f32[16, 48]"));
  EXPECT_TRUE(mentions(shapes, "attention_backward of 2 x 8 tokens, 2 heads, f32[16, 48]"));
}

TEST(ProductCheck, AcceptsTheCpusProductsAndTheirBitsAreTheSameForEveryRank) {
  for (const std::optional<double> capacity : {std::optional(1.0), std::optional<double>()}) {
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      RunConfig config = tiny_config();
      config.model.moe.capacity_factor = capacity;
      config.train.batch_tokens = 64;
      std::vector<std::vector<Compared>> of_ranks;
      for (const int rank : {0, 3}) {
        const ThreadCount threads(rank + 1);
        const auto ctx = cpu::backend().create_context(0);
        const comm::Layout layout = {.world = 4, .expert_parallel_size = 4, .rank = rank};
        of_ranks.push_back(check_products(*ctx, shapes_of(config, compute, layout)));
        ctx->step().check_empty();
      }
      ASSERT_EQ(of_ranks[0].size(), of_ranks[1].size());
      EXPECT_GT(of_ranks[0].size(), 10u);
      for (size_t i = 0; i < of_ranks[0].size(); ++i) {
        EXPECT_EQ(of_ranks[0][i].what, of_ranks[1][i].what);
        EXPECT_EQ(of_ranks[0][i].value, of_ranks[1][i].value) << of_ranks[0][i].what;
      }
    }
  }
}

// With one thread there is nothing to compare with: the bits are those that all others are held to.
TEST(ProductCheck, RefusesAProductThatDependsOnTheNumberOfThreads) {
  ops::KernelTable kernels = cpu::backend().kernels;
  kernels.matmul = {[](Context& ctx, const ops::Matmul& args) {
    cpu::backend().kernels.matmul(ctx, args);
    if (args.out.cols() == 4 && thread_count() > 1) add_an_ulp(args.out);  // the router's
  }};
  EXPECT_EQ(refusal(kernels),
            "parallel.width_invariant: matmul f32[32, 4] = f32[32, 8] x f32[4, 8]^T gives other bits with 2 threads "
            "than with 1, so that results would depend on the layout; give every rank one thread (--threads 1), or set "
            "parallel.width_invariant to false");
}

TEST(ProductCheck, RefusesExpertsProductsThatDependOnTheirCompany) {
  ops::KernelTable kernels = cpu::backend().kernels;
  kernels.grouped_matmul = {[](Context& ctx, const ops::GroupedMatmul& args) {
    cpu::backend().kernels.grouped_matmul(ctx, args);
    if (args.groups.rows.count() > 1 && !args.transpose_weight) add_an_ulp(args.out);
  }};
  EXPECT_NE(refusal(kernels).find("grouped_matmul f32[rows, 12] = f32[rows, 8] x f32[8, 12] gives an expert's rows "
                                  "other bits alone than among those of other experts"),
            std::string::npos)
      << refusal(kernels);
  kernels = cpu::backend().kernels;
  kernels.grouped_weight_grad = {[](Context& ctx, const ops::GroupedWeightGrad& args) {
    cpu::backend().kernels.grouped_weight_grad(ctx, args);
    if (args.groups.begin.as<int32_t>()[0] > 0) add_an_ulp(args.grad_weight);
  }};
  EXPECT_NE(refusal(kernels).find("grouped_weight_grad"), std::string::npos) << refusal(kernels);
}

TEST(ProductCheck, RefusesAttentionThatDependsOnThreads) {
  ops::KernelTable kernels = cpu::backend().kernels;
  kernels.attention_backward = {[](Context& ctx, const ops::AttentionBackward& args) {
    cpu::backend().kernels.attention_backward(ctx, args);
    if (thread_count() > 1) add_an_ulp(args.grad_qkv);
  }};
  EXPECT_NE(refusal(kernels).find("attention_backward of 2 x 8 tokens"), std::string::npos) << refusal(kernels);
}

}  // namespace
}  // namespace mhmoe::train
