#include "kernels/attention_tiles.cuh"
#include "kernels/kernels.h"
#include "kernels/reduce.cuh"

// After FlashAttention-2: a block owns queries and goes through the keys that they see in ascending order, with the
// softmax's maximum and sum brought up to date tile by tile.
namespace mhmoe::cuda {
namespace {

constexpr int kKeys = 64;  // of a tile

// By ptxas, the larger number of sm_80 and sm_90 (sm_100 takes up to 56 fewer), 0 bytes spilled. Blocks are those of 4
// warps that fit a multiprocessor of 65,536 registers and 164 KiB (A100) or 228 KiB (H100) of shared memory:
//
//   head size   queries   registers   shared KiB   blocks
//          32       128         184           24        2
//          64       128         250           48        2
//          96        64         168           60      2-3
//         128        64         222           80        2
//
// Registers bound it, and are well spent: with two strips 8 16x8x16 products come of 2.5 ldmatrix.x4 (1.25 clocks of
// shared memory a product; with one, 2.25; mma.sync takes 2 at the 1,024 fused operations a clock of an A100). A tile
// of keys and values (16 KiB at 64) feeds 4 * 128 * 64 * 64 FLOP: 128 a byte from L2.

template <int kHeadSize>
struct Forward {
  static constexpr int kStrips = kHeadSize <= 64 ? 2 : 1;
  static constexpr int kQueries = kOwnRows<kStrips>;
  using QueryTile = Tile<kQueries, kHeadSize>;
  using KeyTile = Tile<kKeys, kHeadSize>;
  using Stream = StreamedPair<KeyTile>;
  using Scores = WarpSums<kStrips, kKeys>;
  using Out = WarpSums<kStrips, kHeadSize>;
  static constexpr size_t kSharedBytes = sizeof(__nv_bfloat16) * (QueryTile::kElements + Stream::kElements);
};

// Of a lane's rows; sum: over the columns that the lane has.
template <int kStrips>
struct Softmax {
  float largest[kStrips][2], sum[kStrips][2];
};

// Scores of keys that their query does not see become -infinity. first_query: the warp's.
template <int kStrips>
__device__ void hide_unseen(WarpSums<kStrips, kKeys>& scores, VisibleKeys visible, int first_query, int first_key) {
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int seen = visible.of(first_query + strip * kMmaRows + half * 8 + sum_row()) - first_key - sum_col();
#pragma unroll
      for (int n = 0; n < kKeys / kMmaCols; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (n * kMmaCols + i >= seen) scores.at[strip][n][2 * half + i] = -INFINITY;
        }
      }
    }
  }
}

// Scores become numerators for the new maximum, and what was summed up before is scaled to it. factor: of the scores,
// with log2 e. Every query sees the first key if any, so that maxima are finite from the first tile on.
template <int kStrips, int kHeadSize>
__device__ void update_softmax(WarpSums<kStrips, kKeys>& scores, WarpSums<kStrips, kHeadSize>& out,
                               Softmax<kStrips>& softmax, float factor) {
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float before = softmax.largest[strip][half];
      float largest = before;
#pragma unroll
      for (const auto& tile : scores.at[strip]) largest = fmaxf(largest, fmaxf(tile[2 * half], tile[2 * half + 1]));
#pragma unroll
      for (int mask = 1; mask <= 2; ++mask) largest = fmaxf(largest, __shfl_xor_sync(kFullWarp, largest, mask));
      softmax.largest[strip][half] = largest;
      const float shift = largest * factor, rescale = exp2_fast(before * factor - shift);
      float sum = softmax.sum[strip][half] * rescale;
#pragma unroll
      for (auto& tile : scores.at[strip]) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          tile[i] = exp2_fast(tile[i] * factor - shift);
          sum += tile[i];
        }
      }
      softmax.sum[strip][half] = sum;
#pragma unroll
      for (auto& tile : out.at[strip]) {
        tile[2 * half] *= rescale;
        tile[2 * half + 1] *= rescale;
      }
    }
  }
}

// Ends the sums and writes log_sum_exp; what remains in softmax.sum is its inverse, 0 where no key was seen.
template <int kStrips>
__device__ void finish_softmax(Softmax<kStrips>& softmax, float* log_sum_exp, int first_query, int length,
                               float scale) {
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float& sum = softmax.sum[strip][half];
#pragma unroll
      for (int mask = 1; mask <= 2; ++mask) sum += __shfl_xor_sync(kFullWarp, sum, mask);
      const int query = first_query + strip * kMmaRows + half * 8 + sum_row();
      if (sum_col() == 0 && query < length) {
        log_sum_exp[query] = sum == 0 ? -INFINITY : softmax.largest[strip][half] * scale + logf(sum);
      }
      sum = sum == 0 ? 0.0f : 1.0f / sum;
    }
  }
}

template <int kHeadSize>
__global__ void __launch_bounds__(kAttentionThreads)
    flash_forward_kernel(__nv_bfloat16* out, float* log_sum_exp, const __nv_bfloat16* qkv, AttentionSizes sizes,
                         int tiles) {
  using F = Forward<kHeadSize>;
  constexpr int kStrips = F::kStrips;
  const AttentionBlock block(tiles);
  const int first = (tiles - 1 - block.tile) * F::kQueries;  // the tiles with the most keys begin first
  const int row = warp_row<kStrips>(), warp_first = first + row;
  const VisibleKeys visible = sizes.visible_keys(block.head);
  const int end = first + F::kQueries < sizes.length ? first + F::kQueries : sizes.length;
  const int key_tiles = (visible.of(end - 1) + kKeys - 1) / kKeys;
  const int warp_keys = warp_first < sizes.length ? visible.of(warp_first + kStrips * kMmaRows - 1) : 0;

  __nv_bfloat16* const shared = dynamic_shared<__nv_bfloat16>();
  const typename F::QueryTile queries{shared};
  const typename F::Stream stream{shared + F::QueryTile::kElements, sizes.rows(qkv, block.head, 3, 1),
                                  sizes.rows(qkv, block.head, 3, 2), visible.keys};
  if (key_tiles > 0) {
    begin_rows(queries, sizes.rows(qkv, block.head, 3, 0).from(first), sizes.length - first);
    stream.begin(0, 0);
  }
  cp_async_commit();

  typename F::Out sums;
  sums.set_zero();
  Softmax<kStrips> softmax;
#pragma unroll
  for (int i = 0; i < 2 * kStrips; ++i) softmax.largest[i / 2][i % 2] = -INFINITY, softmax.sum[i / 2][i % 2] = 0;
  for (int tile = 0; tile < key_tiles; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before, whose place the next one takes
    if (tile + 1 < key_tiles) stream.begin(tile + 1, (tile + 1) * kKeys);
    cp_async_commit();
    const int first_key = tile * kKeys;
    if (first_key >= warp_keys) continue;
    typename F::Scores scores;
    multiply_rows(scores, queries, row, stream.first_tile(tile));
    if (first_key + kKeys > visible.of(warp_first)) hide_unseen(scores, visible, warp_first, first_key);
    update_softmax(scores, sums, softmax, sizes.scale * kLog2E);
    add_weighted(sums, scores, stream.second_tile(tile));
  }
  finish_softmax(softmax, log_sum_exp + block.head * sizes.length, warp_first, sizes.length, sizes.scale);
  store_rows(sizes.rows(out, block.head, 1, 0), first, sizes.length, queries, row, sums,
             [&](int strip, int half) { return softmax.sum[strip][half]; });
}

}  // namespace

void flash_attention_forward(Context& ctx, const ops::AttentionForward& args) {
  const AttentionSizes sizes = attention_sizes(args.shape, args.prefix_lengths, args.key_lengths);
  dispatch_head_size(args.shape.head_size, [&](auto head_size) {
    using F = Forward<head_size()>;
    const unsigned tiles = block_count(sizes.length, F::kQueries);
    launch({.grid = block_count(sizes.head_count() * tiles, 1),
            .block = kAttentionThreads,
            .shared_bytes = F::kSharedBytes,
            .stream = stream_of(ctx)},
           flash_forward_kernel<head_size()>, elements<bfloat16>(args.out), elements<float>(args.log_sum_exp),
           elements<const bfloat16>(args.qkv), sizes, tiles);
  });
}

}  // namespace mhmoe::cuda
