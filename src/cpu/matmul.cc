#include "ops/matmul.h"

#include <algorithm>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/product.h"
#include "cpu/rows.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"
#include "cpu/weight_grad.h"

namespace mhmoe::cpu {
namespace {

constexpr int64_t kConversionGrain = int64_t{1} << 15;
constexpr int64_t kColumnBlock = 64;

const float* converted(const Tensor& in, Scratch& scratch) {
  float* out = scratch.floats(in.count());
  const auto* from = in.as<const bfloat16>();
  parallel_for(in.count(), kConversionGrain,
               [&](int64_t begin, int64_t end, int /*thread*/) { load_row(out + begin, from + begin, end - begin); });
  return out;
}

// For CPUs without bf16 products: the same product on converted operands.
void run_converted(ProductKind kind, const ops::Matmul& args) {
  thread_local Scratch a_scratch, b_scratch, out_scratch;
  kind.in = DType::kF32;
  kind.out = DType::kF32;
  const bool narrow = args.out.dtype == DType::kBF16;
  float* out = narrow ? out_scratch.floats(args.out.count()) : args.out.as<float>();
  const float* a = converted(args.a, a_scratch);
  const float* b = converted(args.b, b_scratch);
  Product::of(kind).run({.out = out, .a = a, .b = b, .bias = args.bias.data});
  if (!narrow) return;
  auto* to = args.out.as<bfloat16>();
  parallel_for(args.out.count(), kConversionGrain,
               [&](int64_t begin, int64_t end, int /*thread*/) { store_row(to + begin, out + begin, end - begin); });
}

// A product over no inner elements: what is left of the epilogue.
void add_bias_only(Context& ctx, const ops::Matmul& args) {
  if (args.addend.empty()) ctx.fill_zero(args.out);
  if (args.bias.empty()) return;
  const auto* bias = args.bias.as<const float>();
  dispatch_float(args.out.dtype, [&](auto zero) {
    auto* out = args.out.as<decltype(zero)>();
    const int64_t n = args.out.cols();
    for (int64_t i = 0; i < args.out.count(); ++i) store_value(out[i], static_cast<float>(out[i]) + bias[i % n]);
  });
}

// A product of operands like a weight gradient's that adds to more than twice of what it reads, as the gradient of a
// large table does: it waits for memory, which oneDNN takes in worse order.
bool adds_to_much(const ops::Matmul& args, int64_t k) {
  const bool weight_gradient = args.transpose_a && !args.transpose_b && args.bias.empty() && !args.addend.empty();
  return weight_gradient && k <= kWeightGradPiece && args.out.count() > 2 * (args.a.count() + args.b.count());
}

void add_weight_gradient(const ops::Matmul& args, int64_t k) {
  const int32_t begin = 0, rows = static_cast<int32_t>(k);
  dispatch_float(args.a.dtype, [&](auto zero) {
    using T = decltype(zero);
    add_weight_gradients<T>(args.out.as<float>(), {args.a.as<const T>(), args.a.cols()},
                            {args.b.as<const T>(), args.b.cols()}, {&begin, &rows, 1});
  });
}

}  // namespace

void matmul(Context& ctx, const ops::Matmul& args) {
  const int64_t m = args.out.rows(), n = args.out.cols();
  const int64_t k = args.transpose_a ? args.a.rows() : args.a.cols();
  if (m == 0 || n == 0) return;
  // A separate addend is copied first: one pass more, and one kind of product fewer.
  if (!args.addend.empty()) ctx.copy(args.out, args.addend);
  if (k == 0) return add_bias_only(ctx, args);
  if (adds_to_much(args, k)) return add_weight_gradient(args, k);
  const ProductKind kind = {.m = m,
                            .n = n,
                            .k = k,
                            .lda = args.a.cols(),
                            .ldb = args.b.cols(),
                            .ldc = n,
                            .transpose_a = args.transpose_a,
                            .transpose_b = args.transpose_b,
                            .bias = !args.bias.empty(),
                            .accumulate = !args.addend.empty(),
                            .in = args.a.dtype,
                            .out = args.out.dtype};
  if (args.a.dtype == DType::kBF16 && !native_bf16()) return run_converted(kind, args);
  Product::of(kind).run({.out = args.out.data, .a = args.a.data, .b = args.b.data, .bias = args.bias.data});
}

// Columns are split over threads, never rows: the same bits at any number of threads.
void bias_backward(Context& /*ctx*/, const ops::BiasBackward& args) {
  const int64_t rows = args.grad_out.rows(), cols = args.grad_out.cols();
  auto* grad_bias = args.grad_bias.as<float>();
  dispatch_float(args.grad_out.dtype, [&](auto zero) {
    const auto* grad_out = args.grad_out.as<const decltype(zero)>();
    parallel_tasks((cols + kColumnBlock - 1) / kColumnBlock, [&](int64_t block, int /*thread*/) {
      const int64_t first = block * kColumnBlock, width = std::min(kColumnBlock, cols - first);
      add_column_sums<kColumnBlock>(grad_bias + first, grad_out + first, cols, rows, width,
                                    [](int64_t /*row*/) { return 1.0f; });
    });
  });
}

}  // namespace mhmoe::cpu
