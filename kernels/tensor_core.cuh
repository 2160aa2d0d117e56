// What kernels on tensor cores share: bf16 tiles in shared memory, their way there, and from there to registers.
#pragma once

#include <cuda_bf16.h>

#include "kernels/launch.h"
#include "kernels/ptx.cuh"

namespace mhmoe::cuda {

constexpr int kChunk = 8;  // bf16 elements in 16 bytes, the unit of copies and of ldmatrix
constexpr int kMmaRows = 16, kMmaCols = 8, kMmaDepth = 16;

// A [kRows, kCols] matrix in shared memory, 16-byte aligned. Rows follow each other without gaps; within a row the
// chunks are permuted such that any 8 rows of one chunk column, which is what ldmatrix reads at a time, lie in
// different banks.
template <int kRowCount, int kColCount>
struct Tile {
  static_assert(kColCount % kChunk == 0);
  static constexpr int kRows = kRowCount, kCols = kColCount;
  static constexpr int kChunks = kCols / kChunk;
  static constexpr int kElements = kRows * kCols;

  // Banks repeat every 8 chunks. Of rows that are an odd multiple of 2^j chunks long, 2^(3-j) lie in different banks
  // as they are, so the number of the group of so many rows permutes the chunks.
  static constexpr int kGroups = kChunks % 8 == 0 ? 8 : kChunks % 4 == 0 ? 4 : kChunks % 2 == 0 ? 2 : 1;
  static constexpr int place(int row, int index) { return row * kChunks + (index ^ (row / (8 / kGroups) % kGroups)); }

  __nv_bfloat16* data;

  __device__ __nv_bfloat16* chunk(int row, int index) const { return data + place(row, index) * kChunk; }
  // Elements (row, col) and (row, col + 1), col even.
  __device__ uint32_t* pair(int row, int col) const {
    return reinterpret_cast<uint32_t*>(chunk(row, col / kChunk) + col % kChunk);
  }
};

// Whether the 8 rows that ldmatrix reads at a time lie in different banks.
template <class T>
constexpr bool free_of_bank_conflicts() {
  for (int first = 0; first + 8 <= T::kRows; first += 8) {
    for (int index = 0; index < T::kChunks; ++index) {
      unsigned banks = 0;
      for (int row = first; row < first + 8; ++row) banks |= 1u << T::place(row, index) % 8;
      if (banks != 0xff) return false;
    }
  }
  return true;
}
static_assert(free_of_bank_conflicts<Tile<32, 16>>() && free_of_bank_conflicts<Tile<32, 32>>() &&
              free_of_bank_conflicts<Tile<32, 64>>() && free_of_bank_conflicts<Tile<32, 96>>() &&
              free_of_bank_conflicts<Tile<32, 128>>());

// Begins to copy a tile: row r from row_pointer(r), which is called for r < rows only; chunks beyond `rows` or `cols`
// become zeros and are not read. cols: a multiple of kChunk; row pointers and `any`, an address in global memory for
// where nothing is read: 16-byte aligned. The whole block of kThreads calls; then cp_async_commit, cp_async_wait and a
// barrier.
template <int kThreads, class T, class RowPointer>
__device__ void begin_tile(T tile, int rows, int cols, const void* any, RowPointer&& row_pointer) {
  static_assert(T::kRows * T::kChunks % kThreads == 0);
#pragma unroll
  for (int i = 0; i < T::kRows * T::kChunks / kThreads; ++i) {
    const int at = i * kThreads + static_cast<int>(threadIdx.x);
    const int row = at / T::kChunks, chunk = at % T::kChunks;
    const bool valid = row < rows && chunk * kChunk < cols;
    cp_async_16(tile.chunk(row, chunk), valid ? row_pointer(row) + chunk * kChunk : any, valid);
  }
}

// The same from a matrix whose rows lie `stride` elements apart.
template <int kThreads, class T>
__device__ void begin_tile(T tile, const __nv_bfloat16* source, int64_t stride, int rows, int cols) {
  begin_tile<kThreads>(tile, rows, cols, source, [&](int row) { return source + row * stride; });
}

// Fragments of mma_m16n8k16. All lanes of the warp must call; row, col and depth are multiples of 16.

__device__ inline int lane_index() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}

// The 16x16 operand a = op(x) at (row, depth); the tile holds op(x) itself: [row, depth].
template <class T>
__device__ void load_a(uint32_t (&a)[4], T tile, int row, int depth) {
  const int lane = lane_index();
  ldmatrix_x4(a, tile.chunk(row + lane % 16, depth / kChunk + lane / 16));
}

// The same from a tile that holds the transpose: [depth, row].
template <class T>
__device__ void load_a_transposed(uint32_t (&a)[4], T tile, int row, int depth) {
  const int lane = lane_index();
  ldmatrix_x4_trans(a, tile.chunk(depth + lane % 8 + lane / 16 * 8, row / kChunk + lane / 8 % 2));
}

// Two 16x8 operands b at (depth, col) and (depth, col + 8); the tile holds b: [depth, col].
template <class T>
__device__ void load_b(uint32_t (&b)[2][2], T tile, int depth, int col) {
  const int lane = lane_index();
  uint32_t r[4];
  ldmatrix_x4_trans(r, tile.chunk(depth + lane % 16, col / kChunk + lane / 16));
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

// The same from a tile that holds the transpose: [col, depth].
template <class T>
__device__ void load_b_transposed(uint32_t (&b)[2][2], T tile, int depth, int col) {
  const int lane = lane_index();
  uint32_t r[4];
  ldmatrix_x4(r, tile.chunk(col + lane % 8 + lane / 16 * 8, depth / kChunk + lane / 8 % 2));
  b[0][0] = r[0], b[0][1] = r[1], b[1][0] = r[2], b[1][1] = r[3];
}

// Where a lane's sums d[2 * half], d[2 * half + 1] of a 16x8 product lie: at (row + 8 * half, col) and the column
// after.
__device__ inline int sum_row() {
  return lane_index() / 4;
}
__device__ inline int sum_col() {
  return lane_index() % 4 * 2;
}

// Two floats as bf16, the first in the low half: a pair of Tile, or of an operand.
__device__ inline uint32_t bf16_pair(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

}  // namespace mhmoe::cuda
