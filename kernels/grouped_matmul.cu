#include "ops/grouped_matmul.h"

#include "cuda/cublas.h"
#include "cuda/expert_products.h"
#include "kernels/block_product.cuh"
#include "kernels/grouped_swiglu.h"
#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/plain_product.cuh"
#include "kernels/row_groups.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

// Whole tiles of one expert's rows times one expert's matrix; tiles side by side are neighbours, so that they find the
// rows in the cache. `inner`: terms of a sum; `width`: columns of out. With a capacity, rows of no expert are not read
// and become zero (or the bias): whoever takes all rows along, as strided batches do, finds numbers there.
template <class Out, class In>
struct GroupedProduct {
  Out* out;
  const In* a;
  const In* weight;
  const float* bias;
  DeviceGroups groups;
  int64_t inner, width;

  __device__ float bias_at(int expert, int64_t col) const {
    return bias == nullptr ? 0.0f : bias[expert * width + col];
  }
};

// Sums from registers to memory, by 16 bytes: bf16 goes through shared memory for that, pairs of f32 fill the 32 bytes
// that memory moves at a time.
template <class Out>
__device__ void store_sums(const ProductSums& sums, const GroupedProduct<Out, __nv_bfloat16>& product,
                           const RowTile& tile, int64_t first_col, __nv_bfloat16* shared) {
  Out* out = product.out + tile.begin * product.width + first_col;
  const int cols = product_extent(product.width, first_col);
  if constexpr (std::is_same_v<Out, float>) {
    sums.for_each_pair([&](int row, int col, float low, float high) {
      if (row >= tile.written || col >= cols) return;
      const Floats<2> pair = {low + product.bias_at(tile.expert, first_col + col),
                              high + product.bias_at(tile.expert, first_col + col + 1)};
      store<2>(out + row * product.width + col, pair);
    });
  } else {
    using Staged = Tile<kProductTile, kProductTile>;
    const Staged staged{shared};
    sums.for_each_pair([&](int row, int col, float low, float high) {
      if (col < cols) {
        low += product.bias_at(tile.expert, first_col + col);
        high += product.bias_at(tile.expert, first_col + col + 1);
      }
      *staged.pair(row, col) = bf16_pair(low, high);
    });
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < kProductTile * Staged::kChunks; at += kProductThreads) {
      const int row = at / Staged::kChunks, chunk = at % Staged::kChunks;
      if (row >= tile.written || chunk * kChunk >= cols) continue;
      *reinterpret_cast<uint4*>(out + row * product.width + chunk * kChunk) =
          *reinterpret_cast<const uint4*>(staged.chunk(row, chunk));
    }
  }
}

template <bool kTransposeWeight, class Out>
__global__ void __launch_bounds__(kProductThreads, 2)
    grouped_matmul_kernel(GroupedProduct<Out, __nv_bfloat16> product, unsigned tiles_beside) {
  const RowTile tile = find_row_tile<kProductTile>(product.groups, blockIdx.x / tiles_beside);
  if (tile.written == 0) return;
  const int64_t inner = product.inner, width = product.width, terms = tile.rows == 0 ? 0 : inner;
  const int64_t first_col = int64_t{blockIdx.x % tiles_beside} * kProductTile;
  const auto* weight = product.weight + tile.expert * inner * width;
  auto* shared = dynamic_shared<__nv_bfloat16>();
  const ProductOperand<false> a = {product.a + tile.begin * inner, inner, tile.rows};
  ProductSums sums;
  using Weight = ProductOperand<!kTransposeWeight>;
  const Weight b = kTransposeWeight ? Weight{weight + first_col * inner, inner, product_extent(width, first_col)}
                                    : Weight{weight + first_col, width, product_extent(width, first_col)};
  block_product(sums, a, b, terms, shared);
  store_sums(sums, product, tile, first_col, shared);
}

template <bool kTransposeWeight, class Out, class In>
__global__ void __launch_bounds__(kPlainThreads)
    grouped_matmul_plain_kernel(GroupedProduct<Out, In> product, unsigned tiles_beside) {
  const RowTile tile = find_row_tile<kPlainTile>(product.groups, blockIdx.x / tiles_beside);
  if (tile.written == 0) return;
  const int64_t inner = product.inner, width = product.width, terms = tile.rows == 0 ? 0 : inner;
  const int64_t first_col = int64_t{blockIdx.x % tiles_beside} * kPlainTile;
  const In* a = product.a + tile.begin * inner;
  const In* weight = product.weight + tile.expert * inner * width;
  float sums[kPlainSums][kPlainSums] = {};
  plain_product<false, !kTransposeWeight>(
      sums, terms,
      [&](int row, int64_t d) { return row < tile.rows && d < inner ? to_float(a[row * inner + d]) : 0.0f; },
      [&](int col, int64_t d) {
        if (first_col + col >= width || d >= inner) return 0.0f;
        return to_float(weight[kTransposeWeight ? (first_col + col) * inner + d : d * width + first_col + col]);
      });
  for_each_plain(sums, [&](int row, int col, float sum) {
    if (row >= tile.written || first_col + col >= width) return;
    product.out[(tile.begin + row) * width + first_col + col] =
        from_float<Out>(sum + product.bias_at(tile.expert, first_col + col));
  });
}

template <bool kTransposeWeight, class Out, class In>
void launch_product(Context& ctx, const ops::GroupedMatmul& args, const GroupedProduct<Out, In>& product) {
  const auto grid = [&](int64_t row_tiles, unsigned tiles_beside) { return block_count(row_tiles * tiles_beside, 1); };
  if constexpr (std::is_same_v<In, __nv_bfloat16>) {
    if (product.inner % kChunk == 0 && product.width % kChunk == 0 &&
        aligned_for(kChunk, {args.out, args.a, args.weight})) {
      const unsigned tiles_beside = block_count(product.width, kProductTile);
      launch({.grid = grid(row_tile_count<kProductTile>(args.groups, args.a.rows()), tiles_beside),
              .block = kProductThreads,
              .shared_bytes = kProductSharedBytes,
              .stream = stream_of(ctx)},
             grouped_matmul_kernel<kTransposeWeight, Out>, product, tiles_beside);
      return;
    }
  }
  const unsigned tiles_beside = block_count(product.width, kPlainTile);
  launch({.grid = grid(row_tile_count<kPlainTile>(args.groups, args.a.rows()), tiles_beside),
          .block = kPlainThreads,
          .stream = stream_of(ctx)},
         grouped_matmul_plain_kernel<kTransposeWeight, Out, In>, product, tiles_beside);
}

template <class Out, class In>
void run_product(Context& ctx, const ops::GroupedMatmul& args) {
  using OutElement = typename DeviceElement<Out>::Type;
  using InElement = typename DeviceElement<In>::Type;
  const GroupedProduct<OutElement, InElement> product = {elements<Out>(args.out),
                                                         elements<const In>(args.a),
                                                         elements<const In>(args.weight),
                                                         elements<const float>(args.bias),
                                                         device_groups(args.groups),
                                                         args.a.cols(),
                                                         args.out.cols()};
  if (args.transpose_weight) {
    launch_product<true>(ctx, args, product);
  } else {
    launch_product<false>(ctx, args, product);
  }
}

void run_strided_batch(Context& ctx, const ops::GroupedMatmul& args) {
  const int64_t experts = args.groups.rows.count(), rows = args.groups.capacity;
  const int64_t inner = args.a.cols(), width = args.out.cols();
  const ArenaScope scope(ctx.step());
  gemm(ctx, allocate_cublas_workspace(ctx),
       GemmBatch{.first = {.m = rows,
                           .n = width,
                           .k = inner,
                           .out = {args.out.data, args.out.dtype, width},
                           .a = {args.a.data, args.a.dtype, inner},
                           .b = {args.weight.data, args.weight.dtype, args.weight.cols(), args.transpose_weight}},
                 .count = experts,
                 .out_step = rows * width,
                 .a_step = rows * inner,
                 .b_step = inner * width});
}

}  // namespace

void grouped_matmul_scratch(Context& ctx, const ops::GroupedMatmul& args) {
  if (runs_as_strided_batch(args)) allocate_cublas_workspace(ctx);
}

void grouped_matmul(Context& ctx, const ops::GroupedMatmul& args) {
  const bool batch = runs_as_strided_batch(args);
  if (!batch && fits_grouped_swiglu(args)) return grouped_swiglu(ctx, args);
  if (batch) {
    run_strided_batch(ctx, args);
  } else if (args.a.dtype == DType::kF32) {
    run_product<float, float>(ctx, args);
  } else if (args.out.dtype == DType::kF32) {
    run_product<float, bfloat16>(ctx, args);
  } else {
    run_product<bfloat16, bfloat16>(ctx, args);
  }
  if (!args.activated.empty()) {
    activation_forward(ctx, {.out = args.activated, .pre = args.out, .kind = args.activation});
  }
}

}  // namespace mhmoe::cuda
