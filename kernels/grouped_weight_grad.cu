#include "cuda/cublas.h"
#include "cuda/expert_products.h"
#include "kernels/block_product.cuh"
#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/plain_product.cuh"
#include "kernels/row_groups.cuh"
#include "kernels/vector.cuh"
#include "ops/grouped_matmul.h"

namespace mhmoe::cuda {
namespace {

// grad_weight[e] [n, k] += grad_out^T x over the rows of e. One block owns a tile of it and goes through the expert's
// rows in order: nothing is added by two blocks, and nothing depends on who runs first.
template <class T>
struct WeightGrad {
  float* grad_weight;
  const T* grad_out;
  const T* x;
  DeviceGroups groups;
  int64_t n, k;
};

// Which tile: those of an expert follow each other, row by row.
struct WeightTile {
  int expert;
  int64_t row, col;
};

template <int kTile, class T>
__device__ WeightTile weight_tile(const WeightGrad<T>& grad) {
  const auto beside = static_cast<unsigned>((grad.k + kTile - 1) / kTile);
  const auto above = static_cast<unsigned>((grad.n + kTile - 1) / kTile);
  const unsigned line = blockIdx.x / beside;
  return {static_cast<int>(line / above), int64_t{line % above} * kTile, int64_t{blockIdx.x % beside} * kTile};
}

template <int kTile>
unsigned weight_tile_count(const Tensor& grad_weight) {
  return block_count(
      grad_weight.dims[0] * block_count(grad_weight.dims[1], kTile) * block_count(grad_weight.dims[2], kTile), 1);
}

__global__ void __launch_bounds__(kProductThreads, 2) grouped_weight_grad_kernel(WeightGrad<__nv_bfloat16> grad) {
  const auto [expert, row, col] = weight_tile<kProductTile>(grad);
  const int64_t rows = grad.groups.rows[expert], begin = grad.groups.begin[expert];
  if (rows == 0) return;
  const ProductOperand<true> a = {grad.grad_out + begin * grad.n + row, grad.n, product_extent(grad.n, row)};
  const ProductOperand<true> b = {grad.x + begin * grad.k + col, grad.k, product_extent(grad.k, col)};
  ProductSums sums;
  block_product(sums, a, b, rows, dynamic_shared<__nv_bfloat16>());
  float* target = grad.grad_weight + (expert * grad.n + row) * grad.k + col;
  sums.for_each_pair([&](int r, int c, float low, float high) {
    if (r >= a.extent || c >= b.extent) return;
    auto total = load<2>(target + r * grad.k + c);
    total[0] += low;
    total[1] += high;
    store<2>(target + r * grad.k + c, total);
  });
}

template <class T>
__global__ void __launch_bounds__(kPlainThreads) grouped_weight_grad_plain_kernel(WeightGrad<T> grad) {
  const auto [expert, first_row, first_col] = weight_tile<kPlainTile>(grad);
  const int64_t rows = grad.groups.rows[expert], begin = grad.groups.begin[expert];
  const int64_t n_left = grad.n - first_row, k_left = grad.k - first_col;
  if (rows == 0) return;
  const T* grad_out = grad.grad_out + begin * grad.n + first_row;
  const T* x = grad.x + begin * grad.k + first_col;
  float sums[kPlainSums][kPlainSums] = {};
  plain_product<true, true>(
      sums, rows, [&](int r, int64_t d) { return r < n_left && d < rows ? to_float(grad_out[d * grad.n + r]) : 0.0f; },
      [&](int c, int64_t d) { return c < k_left && d < rows ? to_float(x[d * grad.k + c]) : 0.0f; });
  float* target = grad.grad_weight + (expert * grad.n + first_row) * grad.k + first_col;
  for_each_plain(sums, [&](int r, int c, float sum) {
    if (r < n_left && c < k_left) target[r * grad.k + c] += sum;
  });
}

template <class T>
WeightGrad<typename DeviceElement<T>::Type> weight_grad(const ops::GroupedWeightGrad& args) {
  return {elements<float>(args.grad_weight),
          elements<const T>(args.grad_out),
          elements<const T>(args.x),
          device_groups(args.groups),
          args.grad_out.cols(),
          args.x.cols()};
}

template <class T>
void run_plain(Context& ctx, const ops::GroupedWeightGrad& args) {
  launch({.grid = weight_tile_count<kPlainTile>(args.grad_weight), .block = kPlainThreads, .stream = stream_of(ctx)},
         grouped_weight_grad_plain_kernel<typename DeviceElement<T>::Type>, weight_grad<T>(args));
}

void run_strided_batch(Context& ctx, const ops::GroupedWeightGrad& args) {
  const auto& [experts, n, k, unused] = args.grad_weight.dims;
  const int64_t rows = args.groups.capacity;
  const ArenaScope scope(ctx.step());
  gemm(ctx, allocate_cublas_workspace(ctx),
       GemmBatch{.first = {.m = n,
                           .n = k,
                           .k = rows,
                           .out = {args.grad_weight.data, DType::kF32, k},
                           .a = {args.grad_out.data, args.grad_out.dtype, n, true},
                           .b = {args.x.data, args.x.dtype, k},
                           .accumulate = true},
                 .count = experts,
                 .out_step = n * k,
                 .a_step = rows * n,
                 .b_step = rows * k});
}

}  // namespace

void grouped_weight_grad_scratch(Context& ctx, const ops::GroupedWeightGrad& args) {
  if (runs_as_strided_batch(args)) allocate_cublas_workspace(ctx);
}

void grouped_weight_grad(Context& ctx, const ops::GroupedWeightGrad& args) {
  if (runs_as_strided_batch(args)) return run_strided_batch(ctx, args);
  if (args.x.dtype == DType::kF32) return run_plain<float>(ctx, args);
  const bool whole_chunks = args.x.cols() % kChunk == 0 && args.grad_out.cols() % kChunk == 0 &&
                            aligned_for(kChunk, {args.grad_weight, args.grad_out, args.x});
  if (!whole_chunks) return run_plain<bfloat16>(ctx, args);
  launch({.grid = weight_tile_count<kProductTile>(args.grad_weight),
          .block = kProductThreads,
          .shared_bytes = kProductSharedBytes,
          .stream = stream_of(ctx)},
         grouped_weight_grad_kernel, weight_grad<bfloat16>(args));
}

}  // namespace mhmoe::cuda
