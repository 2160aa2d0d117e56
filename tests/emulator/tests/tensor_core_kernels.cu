// Kernels on tensor cores' instructions and asynchronous copies: right ones, and ones with a planted mistake
// (tensor_core_test.cc).
#include <map>

#include "emulator/ptx.h"
#include "planted.h"

namespace planted {
namespace {

using namespace emulator;

constexpr int kTiles = 5, kTile = int{kThreads} * 4;  // floats a tile, 4 a thread

enum class Mistake { kNone, kWeakWait, kNoWait, kNoCommit, kNoTrailingBarrier, kNoLeadingBarrier, kMisalignedCopy };

// out[t] = sum over the tiles of in[tile][4 (t + 37)]: tiles come through two buffers, one ahead of its use.
template <Mistake kMistake>
__global__ void pipeline_kernel(float* out, const float* in) {
  __shared__ __align__(16) float tiles[2][kTile];
  const auto begin_tile = [&](int tile) {
    const int offset = static_cast<int>(threadIdx.x) * 4;
    const int shift = kMistake == Mistake::kMisalignedCopy && threadIdx.x == 3 ? 1 : 0;
    cp_async_16(&tiles[tile % 2][offset], in + tile * kTile + offset + shift, tile != 2);  // tile 2 counts as zeros
    if (kMistake != Mistake::kNoCommit) cp_async_commit();
  };
  begin_tile(0);
  float sum = 0;
  for (int tile = 0; tile < kTiles; ++tile) {
    if (tile + 1 < kTiles) {
      begin_tile(tile + 1);
      if (kMistake != Mistake::kNoWait) cp_async_wait<kMistake == Mistake::kWeakWait ? 2 : 1>();
    } else {
      cp_async_wait<0>();
    }
    if (kMistake != Mistake::kNoLeadingBarrier) __syncthreads();
    sum += tiles[tile % 2][(threadIdx.x + 37) % kThreads * 4];
    if (kMistake != Mistake::kNoTrailingBarrier) __syncthreads();
  }
  out[threadIdx.x] = sum;
}

// A copy that nobody waits for.
__global__ void abandoned_copy_kernel(float* out, const float* in) {
  __shared__ __align__(16) float tile[kTile];
  cp_async_16(&tile[threadIdx.x * 4], in + threadIdx.x * 4, true);
  cp_async_commit();
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void copy_to_global_kernel(float* out, const float* in) {
  cp_async_16(out, in, true);
  cp_async_commit();
  cp_async_wait<0>();
}

__device__ void stage(uint32_t* shared, const float* in, int pairs) {
  for (int i = static_cast<int>(threadIdx.x); i < pairs; i += warpSize) {
    shared[i] = __float_as_uint(in[2 * i]) >> 16 | (__float_as_uint(in[2 * i + 1]) & 0xffff0000u);
  }
  __syncwarp();
}

// out [16, 8] = a [16, 16] b [16, 8], in: a, then b, of values that bf16 holds. Each operand lies in shared memory as
// rows of k, or as its transpose.
template <bool kTransposedA, bool kTransposedB>
__global__ void product_kernel(float* out, const float* in) {
  __shared__ __align__(16) uint32_t a_rows[16 * 8], b_rows[16 * 4];
  stage(a_rows, in, 16 * 8);
  stage(b_rows, in + 256, 16 * 4);
  const unsigned lane = threadIdx.x, row = lane % 8, matrix = lane / 8;
  uint32_t a[4], b[2];
  if (kTransposedA) {  // [k, row]: matrices in the order (row, k) = (0, 0), (1, 0), (0, 1), (1, 1)
    ldmatrix_x4_trans(a, a_rows + (row + 8 * (matrix / 2)) * 8 + matrix % 2 * 4);
  } else {
    ldmatrix_x4(a, a_rows + (row + 8 * (matrix % 2)) * 8 + matrix / 2 * 4);
  }
  if (kTransposedB) {  // [k, column]
    ldmatrix_x2_trans(b, b_rows + (row + 8 * (matrix % 2)) * 4);
  } else {  // [column, k]
    ldmatrix_x2(b, b_rows + row * 8 + matrix % 2 * 4);
  }
  float d[4] = {1, 1, 1, 1};
  mma_m16n8k16(d, a, b);
  const unsigned g = lane / 4, t = lane % 4;
  for (unsigned i = 0; i < 4; ++i) out[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = d[i] - 1;
}

__global__ void misaligned_ldmatrix_kernel(float* out, const float* in) {
  __shared__ __align__(16) uint32_t rows[8 * 4 * 4 + 4];
  stage(rows, in, 8 * 4 * 4 + 4);
  uint32_t r[4];
  ldmatrix_x4(r, rows + threadIdx.x * 4 + (threadIdx.x == 9 ? 2 : 0));
  out[threadIdx.x] = __uint_as_float(r[0]);
}

__global__ void divergent_instructions_kernel(float* out, const float* in) {
  __shared__ __align__(16) uint32_t rows[8 * 4 * 4];
  stage(rows, in, 8 * 4 * 4);
  uint32_t r[4];
  if (threadIdx.x < 16) {
    ldmatrix_x4(r, rows + threadIdx.x * 4);
  } else {
    ldmatrix_x4_trans(r, rows + threadIdx.x * 4);
  }
  out[threadIdx.x] = __uint_as_float(r[0]);
}

float pipeline_sum(const float* in, unsigned i) {
  float sum = 0;
  for (const int tile : {0, 1, 3, 4}) sum += in[tile * kTile + static_cast<int>((i + 37) % kThreads * 4)];
  return sum;
}

}  // namespace

const std::map<std::string, Kernel>& tensor_core_kernels() {
  static const std::map<std::string, Kernel> all = {
      {"pipeline", {.kernel = pipeline_kernel<Mistake::kNone>, .expected = pipeline_sum}},
      {"weak_wait", {.kernel = pipeline_kernel<Mistake::kWeakWait>, .expected = pipeline_sum}},
      {"no_wait", {.kernel = pipeline_kernel<Mistake::kNoWait>, .expected = pipeline_sum}},
      {"no_commit", {.kernel = pipeline_kernel<Mistake::kNoCommit>, .expected = pipeline_sum}},
      {"no_trailing_barrier", {.kernel = pipeline_kernel<Mistake::kNoTrailingBarrier>, .expected = pipeline_sum}},
      {"no_leading_barrier", {.kernel = pipeline_kernel<Mistake::kNoLeadingBarrier>, .expected = pipeline_sum}},
      {"misaligned_copy", {.kernel = pipeline_kernel<Mistake::kMisalignedCopy>, .expected = pipeline_sum}},
      {"abandoned_copy", {.kernel = abandoned_copy_kernel}},
      {"copy_to_global", {.kernel = copy_to_global_kernel, .threads = 1}},
      {"product", {.kernel = product_kernel<false, false>, .threads = warpSize}},
      {"product_transposed_a", {.kernel = product_kernel<true, false>, .threads = warpSize}},
      {"product_transposed_b", {.kernel = product_kernel<false, true>, .threads = warpSize}},
      {"product_part_of_a_warp", {.kernel = product_kernel<false, false>, .threads = warpSize - 1}},
      {"misaligned_ldmatrix", {.kernel = misaligned_ldmatrix_kernel, .threads = warpSize}},
      {"divergent_instructions", {.kernel = divergent_instructions_kernel, .threads = warpSize}},
  };
  return all;
}

}  // namespace planted
