// What the attention kernels on tensor cores share, forward and backward. A block of kWarps warps owns a tile of rows
// of one head; rows of the other side come by in a stream of tiles, the next on its way while one is worked on. A warp
// has kStrips strips of 16 of the block's own rows, and takes with them every tile of the stream:
//
//   scores[own row][stream row] = own . stream              multiply_rows
//   total[own row] += sum weights[own row][stream row] stream   add_weighted
//
// Scores stay in registers: the sums of one product are laid out as the other product wants its first operand.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/tensor_core.cuh"

namespace mhmoe::cuda {

constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = kAttentionWarps * kWarpSize;
constexpr float kLog2E = 1.44269504f;

// A block's own rows. Two strips let a warp use every fragment of the stream twice, which nearly halves the reads of
// shared memory for each product; a kernel takes as many as its sums leave registers for.
template <int kStrips>
constexpr int kOwnRows = kAttentionWarps* kMmaRows* kStrips;

// A lane's share of a warp's [kStrips * 16, kCols] sums: products of 16 x 8, as mma_m16n8k16 leaves them.
template <int kStrips, int kCols>
struct WarpSums {
  static constexpr int kColTiles = kCols / kMmaCols;
  float at[kStrips][kColTiles][4];

  __device__ void set_zero() {
#pragma unroll
    for (auto& strip : at) {
#pragma unroll
      for (auto& tile : strip) {
#pragma unroll
        for (float& value : tile) value = 0;
      }
    }
  }
};

// The first of this warp's rows within its block's.
template <int kStrips>
__device__ int warp_row() {
  return static_cast<int>(threadIdx.x) / kWarpSize * kStrips * kMmaRows;
}

// scores = own[row, ...] stream^T; all of the stream's tile.
template <int kStrips, class Own, class Stream>
__device__ void multiply_rows(WarpSums<kStrips, Stream::kRows>& scores, Own own, int row, Stream stream) {
  scores.set_zero();
#pragma unroll 2  // wholly unrolled, all addresses of all steps would lie in registers at once
  for (int depth = 0; depth < Own::kCols; depth += kMmaDepth) {
    uint32_t a[kStrips][4];
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) load_a(a[strip], own, row + strip * kMmaRows, depth);
#pragma unroll
    for (int col = 0; col < Stream::kRows; col += 2 * kMmaCols) {
      uint32_t b[2][2];
      load_b_transposed(b, stream, depth, col);
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
        for (int i = 0; i < 2; ++i) mma_m16n8k16(scores.at[strip][col / kMmaCols + i], a[strip], b[i]);
      }
    }
  }
}

// total += weights stream, weights rounded to bf16.
template <int kStrips, class Stream>
__device__ void add_weighted(WarpSums<kStrips, Stream::kCols>& total, const WarpSums<kStrips, Stream::kRows>& weights,
                             Stream stream) {
#pragma unroll
  for (int depth = 0; depth < Stream::kRows; depth += kMmaDepth) {
    uint32_t a[kStrips][4];
#pragma unroll
    for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
      for (int quarter = 0; quarter < 4; ++quarter) {
        const float* const pair = &weights.at[strip][depth / kMmaCols + quarter / 2][quarter % 2 * 2];
        a[strip][quarter] = bf16_pair(pair[0], pair[1]);
      }
    }
#pragma unroll
    for (int col = 0; col < Stream::kCols; col += 2 * kMmaCols) {
      uint32_t b[2][2];
      load_b(b, stream, depth, col);
#pragma unroll
      for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
        for (int i = 0; i < 2; ++i) mma_m16n8k16(total.at[strip][col / kMmaCols + i], a[strip], b[i]);
      }
    }
  }
}

// The warp's sums, times factor, become rows [first_row + row, ...) of `target`, those below `end`, 16 bytes at a time
// by way of the warp's own rows of `tile`, which only this warp has read since the block's last barrier.
template <int kStrips, class T, class Factor>
__device__ void store_rows(Rows<__nv_bfloat16> target, int first_row, int end, T tile, int row,
                           const WarpSums<kStrips, T::kCols>& sums, Factor&& factor) {
  __syncwarp();  // its lanes have read them
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float scale = factor(strip, half);
#pragma unroll
      for (int n = 0; n < T::kCols / kMmaCols; ++n) {
        const float* const pair = &sums.at[strip][n][2 * half];
        *tile.pair(row + strip * kMmaRows + half * 8 + sum_row(), n * kMmaCols + sum_col()) =
            bf16_pair(pair[0] * scale, pair[1] * scale);
      }
    }
  }
  __syncwarp();
#pragma unroll
  for (int i = 0; i < kStrips * kMmaRows * T::kChunks / kWarpSize; ++i) {
    const int at = i * kWarpSize + lane_index(), r = row + at / T::kChunks, chunk = at % T::kChunks;
    if (first_row + r >= end) continue;
    *reinterpret_cast<uint4*>(target.row(first_row + r) + chunk * kChunk) =
        *reinterpret_cast<const uint4*>(tile.chunk(r, chunk));
  }
}

// Begins to copy T::kRows rows; those from `rows` on are not read and become zeros. Four neighbouring threads take a
// row, the block 32 rows at a time: a multiple of 8, so that a thread's chunks are permuted alike in all of its rows
// and it keeps few addresses in registers.
template <class T>
__device__ void begin_rows(T tile, Rows<const __nv_bfloat16> source, int rows) {
  constexpr int kLanes = 4, kStep = kAttentionThreads / kLanes;
  static_assert(T::kRows % kStep == 0 && T::kChunks % kLanes == 0 && kStep % 8 == 0);
  const int row = static_cast<int>(threadIdx.x) / kLanes, lane = static_cast<int>(threadIdx.x) % kLanes;
  const __nv_bfloat16* from = source.row(row) + lane * kChunk;
#pragma unroll
  for (int step = 0; step < T::kRows; step += kStep) {
    const bool valid = row + step < rows;
#pragma unroll
    for (int chunk = 0; chunk < T::kChunks; chunk += kLanes) {
      cp_async_16(tile.chunk(row, chunk + lane) + step * T::kCols, from + chunk * kChunk, valid);
    }
    from += kStep * source.stride;
  }
}

// Tiles of rows of two tensors in two stages of shared memory; tile number n lies in stage n % 2.
template <class T>
struct StreamedPair {
  static constexpr int kElements = 4 * T::kElements;

  __nv_bfloat16* shared;
  Rows<const __nv_bfloat16> first, second;
  int rows;  // those behind are not read and count as zeros

  __device__ T first_tile(int number) const { return {shared + number % 2 * 2 * T::kElements}; }
  __device__ T second_tile(int number) const { return {first_tile(number).data + T::kElements}; }
  // Begins to copy the tile that starts at this row.
  __device__ void begin(int number, int row) const {
    begin_rows(first_tile(number), first.from(row), rows - row);
    begin_rows(second_tile(number), second.from(row), rows - row);
  }
};

// Of a block of a one-dimensional grid of [heads, tiles].
struct AttentionBlock {
  int64_t head;
  int tile;

  __device__ explicit AttentionBlock(int tiles) : head(blockIdx.x / tiles), tile(blockIdx.x % tiles) {}
};

template <class F>
void dispatch_head_size(int64_t head_size, F&& f) {
  switch (head_size) {
    case 32:
      return f(std::integral_constant<int, 32>{});
    case 64:
      return f(std::integral_constant<int, 64>{});
    case 96:
      return f(std::integral_constant<int, 96>{});
    case 128:
      return f(std::integral_constant<int, 128>{});
    default:
      fail(ExitCode::kInternal, "attention on tensor cores has no head size {}, allowed: 32, 64, 96, 128", head_size);
  }
}

}  // namespace mhmoe::cuda
