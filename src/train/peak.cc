#include "train/peak.h"

#include <algorithm>
#include <array>

#include "core/clock.h"
#include "core/philox.h"
#include "core/rank.h"
#include "ops/elementwise.h"
#include "ops/matmul.h"

namespace mhmoe::train {
namespace {

// Random numbers, a few thousand over and over: with zeros some devices take less power and run faster than they can.
Tensor random_operand(Context& ctx, DType dtype, int64_t count) {
  constexpr size_t kDifferent = 4093;
  std::vector<float> host(static_cast<size_t>(count));
  const Philox philox(1, "operands of products");
  for (size_t i = 0; i < host.size(); ++i) {
    host[i] = i < kDifferent ? static_cast<float>(philox.uniform(i)) - 0.5f : host[i - kDifferent];
  }
  const Tensor out = ctx.step().allocate("operand", dtype, {count});
  const ArenaScope scope(ctx.step());
  const Tensor values = dtype == DType::kF32 ? out : ctx.step().allocate("operand in f32", DType::kF32, {count});
  ctx.upload(values, host.data());
  if (dtype != DType::kF32) ops::cast(ctx, {.out = out, .in = values});
  ctx.synchronize();
  return out;
}

// The memory of the largest product, of which the others take the beginning.
struct Operands {
  Context& ctx;
  DType compute;
  Tensor left, right, out;

  Operands(Context& context, DType dtype, std::span<const Product> products) : ctx(context), compute(dtype) {
    int64_t left_count = 0, right_count = 0, out_count = 0;
    for (const Product& product : products) {
      left_count = std::max(left_count, product.m * product.k);
      right_count = std::max(right_count, product.n * product.k);
      out_count = std::max(out_count, product.m * product.n);
    }
    left = random_operand(ctx, compute, left_count);
    right = random_operand(ctx, compute, right_count);
    out = ctx.step().allocate("product", DType::kF32, {out_count});
    ctx.fill_zero(out);
  }

  void multiply(const Product& product) const {
    const auto [m, n, k, weight_gradient] = product;
    if (weight_gradient) {
      const Tensor sum = out.slice(0, m * n).view({m, n});
      ops::matmul(ctx, {.out = sum,
                        .a = left.slice(0, m * k).view({k, m}),
                        .b = right.slice(0, n * k).view({k, n}),
                        .transpose_a = true,
                        .addend = sum});
    } else {
      ops::matmul(ctx, {.out = {out.data, compute, {m, n}, out.device},
                        .a = left.slice(0, m * k).view({m, k}),
                        .b = right.slice(0, n * k).view({n, k}),
                        .transpose_b = true});
    }
  }
};

// A GPU needs a thousand times the work for the launch not to count; the emulated one computes on the CPU, for no
// figure that means anything.
std::span<const Product> large_products(const Backend& backend) {
  static constexpr std::array kCpu = {Product{768, 768, 768}, Product{1024, 1024, 1024}, Product{1536, 1536, 1536},
                                      Product{2048, 2048, 2048}};
  static constexpr std::array kGpu = {Product{8192, 8192, 8192}};
  static constexpr std::array kEmulated = {Product{256, 256, 256}};
  const std::string_view name = backend.name;
  if (name == "cuda") return kGpu;
  if (name == "emulated") return kEmulated;
  return kCpu;
}

}  // namespace

std::vector<ProductSpeed> measure_products(const Backend& backend, DType compute, std::span<const Product> products,
                                           double seconds, int rounds) {
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const Operands operands(*ctx, compute, products);
  std::vector<std::vector<double>> taken(products.size());
  const auto begin = Clock::now();
  const auto more = [&](int round) { return round < rounds || seconds_since(begin) < seconds; };
  for (int round = 0; more(round); ++round) {
    for (size_t i = 0; i < products.size() && more(round); ++i) {
      const auto start = Clock::now();
      operands.multiply(products[i]);
      ctx->synchronize();
      taken[i].push_back(seconds_since(start));
    }
  }
  std::vector<ProductSpeed> speeds;
  for (size_t i = 0; i < products.size(); ++i) {
    std::ranges::sort(taken[i]);
    speeds.push_back({.product = products[i], .runs = static_cast<int64_t>(taken[i].size())});
    if (taken[i].empty()) continue;
    speeds.back().best = products[i].flops() / taken[i].front();
    speeds.back().median = products[i].flops() / taken[i][taken[i].size() / 2];
  }
  return speeds;
}

double measure_matmul_peak(const Backend& backend, DType compute) {
  constexpr double kSeconds = 0.4;
  double best = 0;
  for (const ProductSpeed& speed : measure_products(backend, compute, large_products(backend), kSeconds, 0)) {
    best = std::max(best, speed.best);
  }
  return best;
}

}  // namespace mhmoe::train
