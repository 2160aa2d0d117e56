#include "kernels/grouped_swiglu.h"

#include "kernels/activation.cuh"
#include "kernels/block_product.cuh"
#include "kernels/launch.h"
#include "kernels/row_groups.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kUnits = kProductTile / 2;  // of a block: as many columns of gates, as many of factors
constexpr int kWarpUnits = ProductSums::kWarpCols / 2;

struct SwigluProduct {
  __nv_bfloat16* pre;        // [R, 2 hidden]: gates, then factors
  __nv_bfloat16* activated;  // [R, hidden]
  const __nv_bfloat16* a;
  const __nv_bfloat16* weight;
  const float* bias;
  DeviceGroups groups;
  int64_t inner, hidden;
};

// The rows of an expert's matrix that a block multiplies, such that a thread gets a unit's gate and its factor: of the
// 32 columns of a warp, 16 are gates and 16 the same units' factors. Units beyond the last are the last one again.
struct SwigluWeight {
  static constexpr bool kDepthOuter = false;
  using Stage = ProductOperand<false>::Stage;

  const __nv_bfloat16* source;  // [2 hidden, inner]
  int64_t inner, hidden, first_unit;

  __device__ void begin(Stage stage, int64_t done, int64_t depth) const {
    begin_tile<kProductThreads>(stage, kProductTile, static_cast<int>(depth - done), source, [&](int row) {
      const int in_warp = row % ProductSums::kWarpCols;
      const int64_t unit = first_unit + row / ProductSums::kWarpCols * kWarpUnits + in_warp % kWarpUnits;
      const int64_t last = hidden - 1;
      return source + ((unit < last ? unit : last) + (in_warp < kWarpUnits ? 0 : hidden)) * inner + done;
    });
  }
};

__device__ inline float low_half(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ inline float high_half(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

// A block's results on their way to memory.
struct Staged {
  using Pre = Tile<kProductTile, kProductTile>;
  using Activated = Tile<kProductTile, kUnits>;
  static_assert((Pre::kElements + Activated::kElements) * sizeof(__nv_bfloat16) <= kProductSharedBytes);

  Pre pre;  // gates, then factors
  Activated activated;
};

// Activations are made from the pre-activations as they are stored, as backward will make them again.
__device__ void stage_units(const ProductSums& sums, const SwigluProduct& product, int expert, int64_t first_unit,
                            const Staged& staged) {
  const int row = ProductSums::first_row() + sum_row();
  const int unit = ProductSums::first_col() / 2 + sum_col();
  const float* bias = product.bias == nullptr ? nullptr : product.bias + expert * 2 * product.hidden + first_unit;
#pragma unroll
  for (int i = 0; i < ProductSums::kFragmentRows; ++i) {
#pragma unroll
    for (int j = 0; j < ProductSums::kFragmentCols / 2; ++j) {
      const int u = unit + j * kMmaCols;
      float gate_bias[2] = {}, factor_bias[2] = {};
      if (bias != nullptr && first_unit + u < product.hidden) {
        gate_bias[0] = bias[u], gate_bias[1] = bias[u + 1];
        factor_bias[0] = bias[product.hidden + u], factor_bias[1] = bias[product.hidden + u + 1];
      }
      const auto &gates = sums.value[i][j], &factors = sums.value[i][j + ProductSums::kFragmentCols / 2];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = row + i * kMmaRows + half * 8;
        const uint32_t gate = bf16_pair(gates[2 * half] + gate_bias[0], gates[2 * half + 1] + gate_bias[1]);
        const uint32_t factor = bf16_pair(factors[2 * half] + factor_bias[0], factors[2 * half + 1] + factor_bias[1]);
        *staged.pre.pair(r, u) = gate;
        *staged.pre.pair(r, kUnits + u) = factor;
        *staged.activated.pair(r, u) = bf16_pair(Swiglu::unit(low_half(gate), low_half(factor)).out,
                                                 Swiglu::unit(high_half(gate), high_half(factor)).out);
      }
    }
  }
}

// Chunks of `units` units of a staged tile, from column `first` of it on, to rows `stride` elements apart.
template <class T>
__device__ void store_units(T tile, int first, __nv_bfloat16* out, int64_t stride, int64_t rows, int64_t units) {
  constexpr int kChunks = kUnits / kChunk;
  for (int at = static_cast<int>(threadIdx.x); at < kProductTile * kChunks; at += kProductThreads) {
    const int row = at / kChunks, chunk = at % kChunks;
    if (row >= rows || chunk * kChunk >= units) continue;
    *reinterpret_cast<uint4*>(out + row * stride + chunk * kChunk) =
        *reinterpret_cast<const uint4*>(tile.chunk(row, first / kChunk + chunk));
  }
}

__global__ void __launch_bounds__(kProductThreads, 2)
    grouped_swiglu_kernel(SwigluProduct product, unsigned tiles_beside) {
  const RowTile tile = find_row_tile<kProductTile>(product.groups, blockIdx.x / tiles_beside);
  if (tile.written == 0) return;
  const int64_t inner = product.inner, hidden = product.hidden;
  const int64_t first_unit = int64_t{blockIdx.x % tiles_beside} * kUnits;
  auto* shared = dynamic_shared<__nv_bfloat16>();
  const ProductOperand<false> a = {product.a + tile.begin * inner, inner, tile.rows};
  const SwigluWeight b = {product.weight + tile.expert * 2 * hidden * inner, inner, hidden, first_unit};
  ProductSums sums;
  block_product(sums, a, b, tile.rows == 0 ? 0 : inner, shared);
  const Staged staged = {{shared}, {shared + Staged::Pre::kElements}};
  stage_units(sums, product, tile.expert, first_unit, staged);
  __syncthreads();
  __nv_bfloat16* pre = product.pre + tile.begin * 2 * hidden + first_unit;
  store_units(staged.pre, 0, pre, 2 * hidden, tile.written, hidden - first_unit);
  store_units(staged.pre, kUnits, pre + hidden, 2 * hidden, tile.written, hidden - first_unit);
  store_units(staged.activated, 0, product.activated + tile.begin * hidden + first_unit, hidden, tile.written,
              hidden - first_unit);
}

}  // namespace

bool fits_grouped_swiglu(const ops::GroupedMatmul& args) {
  return !args.activated.empty() && args.activation == ops::Activation::kSwiglu && args.a.dtype == DType::kBF16 &&
         args.out.dtype == DType::kBF16 && args.a.cols() % kChunk == 0 && args.activated.cols() % kChunk == 0 &&
         aligned_for(kChunk, {args.out, args.activated, args.a, args.weight});
}

void grouped_swiglu(Context& ctx, const ops::GroupedMatmul& args) {
  const SwigluProduct product = {elements<bfloat16>(args.out),
                                 elements<bfloat16>(args.activated),
                                 elements<const bfloat16>(args.a),
                                 elements<const bfloat16>(args.weight),
                                 elements<const float>(args.bias),
                                 device_groups(args.groups),
                                 args.a.cols(),
                                 args.activated.cols()};
  const unsigned tiles_beside = block_count(product.hidden, kUnits);
  launch({.grid = block_count(row_tile_count<kProductTile>(args.groups, args.a.rows()) * tiles_beside, 1),
          .block = kProductThreads,
          .shared_bytes = kProductSharedBytes,
          .stream = stream_of(ctx)},
         grouped_swiglu_kernel, product, tiles_beside);
}

}  // namespace mhmoe::cuda
