// Products are cuBLAS's; what is here is what it does not do: biases.
#include "ops/matmul.h"

#include <algorithm>

#include "cuda/cublas.h"
#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/partials.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;
constexpr int kChunkRows = 128;  // rows summed in order by one thread: part of the result's definition
// A product in f32 that only waits for its bias: few enough bytes to stay in the L2 cache (40 MB on A100, 50 on H100).
constexpr int64_t kWideBytes = int64_t{16} << 20;

// out[i] = in[i] + bias[column of i]; a null `in` is zero. in: may be `out`.
template <int kWidth, class Out>
__global__ void add_bias_kernel(Out* out, const float* in, const float* bias, int64_t count, int64_t cols) {
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (begin >= count) return;
  auto values = load<kWidth>(bias + begin % cols);
  if (in != nullptr) {
    const auto others = load<kWidth>(in + begin);
    for (int i = 0; i < kWidth; ++i) values[i] += others[i];
  }
  store<kWidth>(out + begin, values);
}

void add_bias(Context& ctx, const Tensor& out, const Tensor& in, const Tensor& bias) {
  const int64_t count = out.count(), cols = out.cols();
  dispatch_float(out.dtype, [&](auto zero) {
    using Out = decltype(zero);
    dispatch_width<kPack>(cols, {out, in, bias}, [&](auto width) {
      launch({.grid = block_count(count, int64_t{kThreads} * width()), .block = kThreads, .stream = stream_of(ctx)},
             add_bias_kernel<width(), typename DeviceElement<Out>::Type>, elements<Out>(out), elements<const float>(in),
             elements<const float>(bias), count, cols);
    });
  });
}

int64_t inner_size(const ops::Matmul& args) {
  return args.transpose_a ? args.a.rows() : args.a.cols();
}

// What the product adds to, written to `out`: the addend plus the bias, either of which may be absent.
void write_start(Context& ctx, const ops::Matmul& args) {
  if (!args.bias.empty()) {
    add_bias(ctx, args.out, args.addend, args.bias);
  } else if (!args.addend.empty()) {
    if (args.addend.data != args.out.data) ctx.copy(args.out, args.addend);
  } else {
    ctx.fill_zero(args.out);
  }
}

// Rows [begin, begin + count) of the product, to `out`.
void multiply_rows(Context& ctx, const ops::Matmul& args, const Tensor& workspace, const Tensor& out, int64_t begin,
                   int64_t count, bool accumulate) {
  const int64_t first = args.transpose_a ? begin : begin * args.a.cols();
  gemm(ctx, workspace,
       {.m = count,
        .n = args.out.cols(),
        .k = inner_size(args),
        .out = {out.data, out.dtype, out.cols()},
        .a = {static_cast<std::byte*>(args.a.data) + first * static_cast<int64_t>(size_of(args.a.dtype)), args.a.dtype,
              args.a.cols(), args.transpose_a},
        .b = {args.b.data, args.b.dtype, args.b.cols(), args.transpose_b},
        .accumulate = accumulate});
}

struct Scratch {
  Tensor workspace;
  Tensor wide;  // f32 [rows, n]; absent unless a bf16 output has a bias
};

Scratch allocate_scratch(Context& ctx, const ops::Matmul& args) {
  const int64_t m = args.out.rows(), n = args.out.cols();
  if (m == 0 || n == 0 || inner_size(args) == 0) return {};
  Scratch scratch = {.workspace = allocate_cublas_workspace(ctx), .wide = {}};
  if (!args.bias.empty() && args.out.dtype == DType::kBF16) {
    const int64_t rows = std::max<int64_t>(1, kWideBytes / (n * static_cast<int64_t>(sizeof(float))));
    scratch.wide = ctx.step().allocate("matmul_wide_rows", DType::kF32, {std::min(m, rows), n});
  }
  return scratch;
}

// cuBLAS's own epilogue adds no f32 bias to a bf16 output. To round once, product and bias are added in f32: 8 bytes an
// element of traffic more than such an epilogue, to and from L2 when the chunk of rows fits there.
void multiply_wide(Context& ctx, const ops::Matmul& args, const Scratch& scratch) {
  const int64_t m = args.out.rows(), chunk = scratch.wide.rows();
  for (int64_t begin = 0; begin < m; begin += chunk) {
    const int64_t count = std::min(chunk, m - begin);
    const Tensor wide = scratch.wide.slice_rows(0, count);
    multiply_rows(ctx, args, scratch.workspace, wide, begin, count, false);
    add_bias(ctx, args.out.slice_rows(begin, count), wide, args.bias);
  }
}

// partial: [chunks, cols]. One thread kWidth columns of a chunk of rows, so that neighbours read neighbours; in double,
// which costs nothing beside waiting for memory and leaves one rounding a chunk.
template <int kWidth, class T>
__global__ void sum_columns_kernel(float* partial, const T* grad_out, int64_t rows, int64_t cols,
                                   int64_t column_blocks) {
  const int64_t chunk = blockIdx.x / column_blocks;
  const int64_t c = (blockIdx.x % column_blocks * kThreads + threadIdx.x) * kWidth;
  if (c >= cols) return;
  const int64_t begin = chunk * kChunkRows;
  const int64_t end = begin + kChunkRows < rows ? begin + kChunkRows : rows;
  double sums[kWidth] = {};
  for (int64_t r = begin; r < end; ++r) {
    const auto values = load<kWidth>(grad_out + r * cols + c);
    for (int i = 0; i < kWidth; ++i) sums[i] += static_cast<double>(values[i]);
  }
  Floats<kWidth> rounded;
  for (int i = 0; i < kWidth; ++i) rounded[i] = static_cast<float>(sums[i]);
  store<kWidth>(partial + chunk * cols + c, rounded);
}

// f32 [chunks, cols]
Tensor allocate_partials(Context& ctx, const Tensor& grad_out) {
  return ctx.step().allocate("bias_backward_partials", DType::kF32,
                             {block_count(grad_out.rows(), kChunkRows), grad_out.cols()});
}

}  // namespace

void matmul_scratch(Context& ctx, const ops::Matmul& args) {
  allocate_scratch(ctx, args);
}

void matmul(Context& ctx, const ops::Matmul& args) {
  const int64_t m = args.out.rows();
  if (m == 0 || args.out.cols() == 0) return;
  if (inner_size(args) == 0) return write_start(ctx, args);
  const ArenaScope scope(ctx.step());
  const Scratch scratch = allocate_scratch(ctx, args);
  if (!scratch.wide.empty()) return multiply_wide(ctx, args, scratch);
  const bool accumulate = !args.bias.empty() || !args.addend.empty();
  if (accumulate) write_start(ctx, args);  // a bias costs one pass of writing more than an epilogue would
  multiply_rows(ctx, args, scratch.workspace, args.out, 0, m, accumulate);
}

void bias_backward_scratch(Context& ctx, const ops::BiasBackward& args) {
  allocate_partials(ctx, args.grad_out);
}

void bias_backward(Context& ctx, const ops::BiasBackward& args) {
  const int64_t rows = args.grad_out.rows(), cols = args.grad_out.cols();
  const ArenaScope scope(ctx.step());
  const Tensor partial = allocate_partials(ctx, args.grad_out);
  dispatch_float(args.grad_out.dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatch_width<kPack>(cols, {args.grad_out, partial}, [&](auto width) {
      const int64_t column_blocks = block_count(cols, int64_t{kThreads} * width());
      launch({.grid = block_count(partial.rows() * column_blocks, 1), .block = kThreads, .stream = stream_of(ctx)},
             sum_columns_kernel<width(), typename DeviceElement<T>::Type>, elements<float>(partial),
             elements<const T>(args.grad_out), rows, cols, column_blocks);
    });
  });
  add_partials(ctx, args.grad_bias, partial);
}

}  // namespace mhmoe::cuda
