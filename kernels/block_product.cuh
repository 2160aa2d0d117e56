// The product of a block of threads on tensor cores: 128x128 sums of bf16 products in f32, operands in a pipeline of
// stages in shared memory.
#pragma once

#include "kernels/tensor_core.cuh"

namespace mhmoe::cuda {

constexpr int kProductThreads = 256;
constexpr int kProductTile = 128;  // rows and columns of a block's sums
constexpr int kProductDepth = 32;  // of a stage
constexpr int kProductStages = 4;
constexpr size_t kProductSharedBytes =
    size_t{2} * kProductStages * kProductTile * kProductDepth * sizeof(__nv_bfloat16);

// What is left of `all` from `done` on, within a block's tile.
__device__ inline int product_extent(int64_t all, int64_t done) {
  return all - done < kProductTile ? static_cast<int>(all - done) : kProductTile;
}

// A block's rows of a, or its columns of b. kDepthOuter: `source` is [depth, extent], else [extent, depth]; rows lie
// `stride` elements apart, 16-byte aligned, and have a multiple of kChunk elements. What lies beyond `extent` counts as
// zeros.
template <bool kIsDepthOuter>
struct ProductOperand {
  static constexpr bool kDepthOuter = kIsDepthOuter;
  using Stage = Tile<kDepthOuter ? kProductDepth : kProductTile, kDepthOuter ? kProductTile : kProductDepth>;

  const __nv_bfloat16* source;
  int64_t stride;
  int extent;

  // Begins to copy the products' terms from number `done` of `depth` on.
  __device__ void begin(Stage stage, int64_t done, int64_t depth) const {
    if constexpr (kDepthOuter) {
      begin_tile<kProductThreads>(stage, source + done * stride, stride, static_cast<int>(depth - done), extent);
    } else {
      begin_tile<kProductThreads>(stage, source + done, stride, extent, static_cast<int>(depth - done));
    }
  }
};

// The block's sums in its threads' registers: 8 warps of 64x32 sums each, 2 above each other and 4 side by side.
struct ProductSums {
  static constexpr int kWarpRows = 64, kWarpCols = 32;
  static constexpr int kFragmentRows = kWarpRows / kMmaRows, kFragmentCols = kWarpCols / kMmaCols;

  float value[kFragmentRows][kFragmentCols][4] = {};

  static __device__ int first_row() { return static_cast<int>(threadIdx.x) / kWarpSize / 4 * kWarpRows; }
  static __device__ int first_col() { return static_cast<int>(threadIdx.x) / kWarpSize % 4 * kWarpCols; }

  // f(row, col, sum at (row, col), sum at (row, col + 1)), with even col, for all that this thread holds.
  template <class F>
  __device__ void for_each_pair(F&& f) const {
    const int row = first_row() + sum_row(), col = first_col() + sum_col();
#pragma unroll
    for (int i = 0; i < kFragmentRows; ++i) {
#pragma unroll
      for (int j = 0; j < kFragmentCols; ++j) {
        const auto& sums = value[i][j];
        f(row + i * kMmaRows, col + j * kMmaCols, sums[0], sums[1]);
        f(row + i * kMmaRows + 8, col + j * kMmaCols, sums[2], sums[3]);
      }
    }
  }
};

// Adds the products of one stage. A, B: ProductOperand, or what has its members.
template <class A, class B>
__device__ void add_stage(ProductSums& sums, typename A::Stage a_tile, typename B::Stage b_tile) {
  const int row = ProductSums::first_row(), col = ProductSums::first_col();
#pragma unroll
  for (int depth = 0; depth < kProductDepth; depth += kMmaDepth) {
    uint32_t b[ProductSums::kFragmentCols / 2][2][2];
#pragma unroll
    for (int j = 0; j < ProductSums::kFragmentCols / 2; ++j) {
      if constexpr (B::kDepthOuter) {
        load_b(b[j], b_tile, depth, col + 2 * j * kMmaCols);
      } else {
        load_b_transposed(b[j], b_tile, depth, col + 2 * j * kMmaCols);
      }
    }
#pragma unroll
    for (int i = 0; i < ProductSums::kFragmentRows; ++i) {
      uint32_t a[4];
      if constexpr (A::kDepthOuter) {
        load_a_transposed(a, a_tile, row + i * kMmaRows, depth);
      } else {
        load_a(a, a_tile, row + i * kMmaRows, depth);
      }
#pragma unroll
      for (int j = 0; j < ProductSums::kFragmentCols; ++j) mma_m16n8k16(sums.value[i][j], a, b[j / 2][j % 2]);
    }
  }
}

// sums += a b over `depth` terms. `shared`: kProductSharedBytes, which is free again when this returns. The whole block
// must call.
template <class A, class B>
__device__ void block_product(ProductSums& sums, const A& a, const B& b, int64_t depth, __nv_bfloat16* shared) {
  using ATile = typename A::Stage;
  using BTile = typename B::Stage;
  const auto a_stage = [&](int64_t stage) { return ATile{shared + stage % kProductStages * ATile::kElements}; };
  const auto b_stage = [&](int64_t stage) {
    return BTile{shared + kProductStages * ATile::kElements + stage % kProductStages * BTile::kElements};
  };
  const int64_t stages = (depth + kProductDepth - 1) / kProductDepth;
  // A group of copies for every stage, empty beyond the last, so that the wait below counts the same everywhere.
  const auto begin = [&](int64_t stage) {
    if (stage < stages) {
      a.begin(a_stage(stage), stage * kProductDepth, depth);
      b.begin(b_stage(stage), stage * kProductDepth, depth);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int stage = 0; stage < kProductStages - 1; ++stage) begin(stage);
  for (int64_t stage = 0; stage < stages; ++stage) {
    cp_async_wait<kProductStages - 2>();
    __syncthreads();  // this stage is there for all, and all are done with the one before, whose place is filled next
    begin(stage + kProductStages - 1);
    add_stage<A, B>(sums, a_stage(stage), b_stage(stage));
  }
  __syncthreads();
}

}  // namespace mhmoe::cuda
