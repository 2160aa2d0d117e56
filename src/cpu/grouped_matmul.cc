#include "ops/grouped_matmul.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/product.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

// Pieces of fixed size, whatever the number of threads: their results do not depend on it.
// A row's result must not depend on its place among the expert's rows or on their number either, else a later token
// could change an earlier one's bits. oneDNN grants that for multiples of 24 rows (tried: its AVX2 kernels sum 1 to 3
// rows left over by 6 in another order, its AVX-512 kernels fewer than 16 rows altogether), so shorter tails are filled
// up.
constexpr int64_t kRowQuantum = 24;
constexpr int64_t kRowBlock = 5 * kRowQuantum;
constexpr int64_t kColumnBlock = 256;
constexpr int64_t kInnerBlock = 1024;

// One thread's share of the work: some rows, or some columns, of one expert.
struct Piece {
  int64_t expert, begin, count;
};

bool needs_conversion(const Tensor& operand) {
  return operand.dtype == DType::kBF16 && !native_bf16();
}

// Blocks of the rows of each expert, in row-buffer numbers: multiples of kRowQuantum, then at most one shorter tail.
const std::vector<Piece>& row_pieces(const ops::RowGroups& groups) {
  thread_local std::vector<Piece> pieces;
  pieces.clear();
  const auto *begin = groups.begin.as<const int32_t>(), *rows = groups.rows.as<const int32_t>();
  for (int64_t e = 0; e < groups.rows.count(); ++e) {
    const int64_t whole = rows[e] / kRowQuantum * kRowQuantum;
    for (int64_t done = 0; done < whole; done += kRowBlock) {
      pieces.push_back({e, begin[e] + done, std::min<int64_t>(kRowBlock, whole - done)});
    }
    if (whole < rows[e]) pieces.push_back({e, begin[e] + whole, rows[e] - whole});
  }
  return pieces;
}

// Blocks of `cols` columns for each expert that has rows.
const std::vector<Piece>& column_pieces(const ops::RowGroups& groups, int64_t cols) {
  thread_local std::vector<Piece> pieces;
  pieces.clear();
  const auto* rows = groups.rows.as<const int32_t>();
  for (int64_t e = 0; e < groups.rows.count(); ++e) {
    for (int64_t c = 0; c < cols && rows[e] > 0; c += kColumnBlock) {
      pieces.push_back({e, c, std::min(kColumnBlock, cols - c)});
    }
  }
  return pieces;
}

void* element(const Tensor& tensor, int64_t i) {
  return static_cast<std::byte*>(tensor.data) + i * static_cast<int64_t>(size_of(tensor.dtype));
}

// Rows [begin, begin + count) of `source` in scratch, converted to f32 where asked, and zeros up to `padded` rows.
void* load_rows(Scratch& scratch, const Tensor& source, int64_t begin, int64_t count, int64_t padded, bool convert) {
  const int64_t cols = source.cols();
  const size_t element_size = convert ? sizeof(float) : size_of(source.dtype);
  auto* rows = static_cast<std::byte*>(scratch.bytes(static_cast<size_t>(padded * cols) * element_size));
  if (convert) {
    load_row(reinterpret_cast<float*>(rows), source.as<const bfloat16>() + begin * cols, count * cols);
  } else {
    std::memcpy(rows, element(source, begin * cols), static_cast<size_t>(count * cols) * element_size);
  }
  const size_t used = static_cast<size_t>(count * cols) * element_size;
  std::memset(rows + used, 0, static_cast<size_t>((padded - count) * cols) * element_size);
  return rows;
}

// A piece that cannot be multiplied in place: a tail shorter than the quantum, or bf16 on a CPU without bf16 products.
void run_copied(const Product& product, const ops::GroupedMatmul& args, const Piece& piece, bool convert) {
  thread_local Scratch a_scratch, weight_scratch, out_scratch;
  const int64_t width = args.out.cols(), weight_rows = args.weight.dims[1];
  const int64_t padded = (piece.count + kRowQuantum - 1) / kRowQuantum * kRowQuantum;
  const void* a = load_rows(a_scratch, args.a, piece.begin, piece.count, padded, convert);
  const void* weight =
      convert ? load_rows(weight_scratch, args.weight, piece.expert * weight_rows, weight_rows, weight_rows, convert)
              : element(args.weight, piece.expert * weight_rows * args.weight.cols());
  const void* bias = args.bias.empty() ? nullptr : element(args.bias, piece.expert * width);
  const bool narrow = convert && args.out.dtype == DType::kBF16;
  const size_t out_size = narrow ? sizeof(float) : size_of(args.out.dtype);
  void* out = out_scratch.bytes(static_cast<size_t>(padded * width) * out_size);
  product.run({.out = out, .a = a, .b = weight, .bias = bias}, padded);
  if (narrow) {
    store_row(args.out.as<bfloat16>() + piece.begin * width, static_cast<const float*>(out), piece.count * width);
  } else {
    std::memcpy(element(args.out, piece.begin * width), out, static_cast<size_t>(piece.count * width) * out_size);
  }
}

}  // namespace

void grouped_matmul(Context& ctx, const ops::GroupedMatmul& args) {
  const int64_t inner = args.a.cols(), width = args.out.cols();
  const bool convert = needs_conversion(args.a);
  const Product& product = Product::of({.m = kAnySize,
                                        .n = width,
                                        .k = inner,
                                        .lda = inner,
                                        .ldb = args.weight.cols(),
                                        .ldc = width,
                                        .transpose_b = args.transpose_weight,
                                        .bias = !args.bias.empty(),
                                        .in = convert ? DType::kF32 : args.a.dtype,
                                        .out = convert ? DType::kF32 : args.out.dtype});
  const auto& pieces = row_pieces(args.groups);
  parallel_tasks(static_cast<int64_t>(pieces.size()), [&](int64_t task, int /*thread*/) {
    const Piece& piece = pieces[task];
    if (convert || piece.count % kRowQuantum != 0) return run_copied(product, args, piece, convert);
    product.run({.out = element(args.out, piece.begin * width),
                 .a = element(args.a, piece.begin * inner),
                 .b = element(args.weight, piece.expert * inner * width),
                 .bias = args.bias.empty() ? nullptr : element(args.bias, piece.expert * width)},
                piece.count);
  });
  if (!args.activated.empty()) {
    activation_forward(ctx, {.out = args.activated, .pre = args.out, .kind = args.activation});
  }
}

// A piece is some rows of grad_weight[e] (columns of grad_out); it runs over the expert's rows in fixed blocks.
void grouped_weight_grad(Context& /*ctx*/, const ops::GroupedWeightGrad& args) {
  const int64_t n = args.grad_out.cols(), k = args.x.cols();
  const bool convert = needs_conversion(args.x);
  const Product& product = Product::of({.m = kAnySize,
                                        .n = k,
                                        .k = kAnySize,
                                        .lda = convert ? kColumnBlock : n,
                                        .ldb = k,
                                        .ldc = k,
                                        .transpose_a = true,
                                        .accumulate = true,
                                        .in = convert ? DType::kF32 : args.x.dtype});
  const auto *begin = args.groups.begin.as<const int32_t>(), *rows = args.groups.rows.as<const int32_t>();
  const auto& pieces = column_pieces(args.groups, n);
  parallel_tasks(static_cast<int64_t>(pieces.size()), [&](int64_t task, int /*thread*/) {
    thread_local Scratch grad_scratch, x_scratch;
    const auto [e, first, width] = pieces[task];
    for (int64_t done = 0; done < rows[e]; done += kInnerBlock) {
      const int64_t row = begin[e] + done, count = std::min<int64_t>(kInnerBlock, rows[e] - done);
      const void *a = element(args.grad_out, row * n + first), *b = element(args.x, row * k);
      if (convert) {
        float* grad = grad_scratch.floats(count * kColumnBlock);
        for (int64_t r = 0; r < count; ++r) {
          load_row(grad + r * kColumnBlock, static_cast<const bfloat16*>(a) + r * n, width);
        }
        float* x = x_scratch.floats(count * k);
        load_row(x, static_cast<const bfloat16*>(b), count * k);
        a = grad, b = x;
      }
      product.run({.out = element(args.grad_weight, (e * n + first) * k), .a = a, .b = b}, width, count);
    }
  });
}

namespace {

// Where a buffer row's gate lies.
int64_t gate_of(const ops::GroupedBiasBackward& args, int64_t row) {
  return args.row_assignment.empty() ? row : args.row_assignment.as<const int32_t>()[row];
}

template <class T>
void add_bias_gradient(const ops::GroupedBiasBackward& args, const Piece& piece) {
  const int64_t n = args.grad_out.cols();
  const int32_t begin = args.groups.begin.as<const int32_t>()[piece.expert];
  const int32_t rows = args.groups.rows.as<const int32_t>()[piece.expert];
  const auto* grad_out = args.grad_out.as<const T>() + begin * n + piece.begin;
  const auto* gate = args.gate.empty() ? nullptr : args.gate.as<const float>();
  std::array<double, kColumnBlock> sums{};
  for (int64_t r = 0; r < rows; ++r) {
    const float scale = gate == nullptr ? 1.0f : gate[gate_of(args, begin + r)];
    const T* row = grad_out + r * n;
#pragma omp simd
    for (int64_t c = 0; c < piece.count; ++c) sums[c] += scale * static_cast<float>(row[c]);
  }
  float* grad_bias = args.grad_bias.as<float>() + piece.expert * n + piece.begin;
  for (int64_t c = 0; c < piece.count; ++c) grad_bias[c] += static_cast<float>(sums[c]);
}

template <class T>
void add_gate_gradient(const ops::GroupedBiasBackward& args, const Piece& piece) {
  const int64_t n = args.grad_out.cols();
  const auto* bias = args.bias.as<const float>() + piece.expert * n;
  auto* grad_gate = args.grad_gate.as<float>();
  for (int64_t r = piece.begin; r < piece.begin + piece.count; ++r) {
    const T* row = args.grad_out.as<const T>() + r * n;
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; ++c) sum += bias[c] * static_cast<float>(row[c]);
    grad_gate[gate_of(args, r)] += sum;
  }
}

}  // namespace

void grouped_bias_backward(Context& /*ctx*/, const ops::GroupedBiasBackward& args) {
  dispatch_float(args.grad_out.dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto& columns = column_pieces(args.groups, args.grad_out.cols());
    parallel_tasks(static_cast<int64_t>(columns.size()),
                   [&](int64_t task, int /*thread*/) { add_bias_gradient<T>(args, columns[task]); });
    if (args.grad_gate.empty()) return;
    const auto& rows = row_pieces(args.groups);
    parallel_tasks(static_cast<int64_t>(rows.size()),
                   [&](int64_t task, int /*thread*/) { add_gate_gradient<T>(args, rows[task]); });
  });
}

}  // namespace mhmoe::cpu
