#include "kernels/attention_tiles.cuh"
#include "kernels/kernels.h"

// After FlashAttention-2, without its atomic sums: probabilities p are computed anew from log_sum_exp once by the
// owners of queries, for grad_q, and once by the owners of keys, for grad_k and grad_v. That is seven products a pair
// of tiles instead of five, and every sum is made by one warp in one order. ds = p (grad_out . v - delta).
namespace mhmoe::cuda {
namespace {

constexpr int kStreamRows = 32;  // of a tile: two tiles of scores, f32, lie in registers beside the sums

// By ptxas, the larger number of sm_80 and sm_90, 0 bytes spilled; blocks as in attention_forward.cu:
//
//               own rows           registers           shared KiB            blocks
//   head size   queries   keys     queries   keys     queries   keys     queries   keys
//          32       128    128         181    226          24   24.5           2      2
//          64       128     64         222    176          48   32.5           2    2-3
//          96        64     64         166    231          48   48.5           3      2
//         128        64     64         187    244          64   64.5           2      2
//
// With two strips, the kernel that owns keys spills 16 bytes at head size 64; not asked for two blocks, ptxas tries for
// three of the other and spills 4 bytes at 128.

template <int kHeadSize, int kStripCount>
struct Backward {
  static constexpr int kStrips = kStripCount;
  static constexpr int kOwn = kOwnRows<kStrips>;
  using OwnTile = Tile<kOwn, kHeadSize>;
  using Stream = StreamedPair<Tile<kStreamRows, kHeadSize>>;
  using Scores = WarpSums<kStrips, kStreamRows>;
  using Sums = WarpSums<kStrips, kHeadSize>;
  static constexpr size_t kTileBytes = sizeof(__nv_bfloat16) * (2 * OwnTile::kElements + Stream::kElements);
};

template <int kHeadSize>
using GradQuery = Backward<kHeadSize, kHeadSize <= 64 ? 2 : 1>;
template <int kHeadSize>
using GradKey = Backward<kHeadSize, kHeadSize <= 32 ? 2 : 1>;  // it has sums for keys and for values

struct BackwardPointers {
  __nv_bfloat16* grad_qkv;
  const __nv_bfloat16 *grad_out, *qkv;
  const float *log_sum_exp, *delta;
};

// A query's: p = 2^(scaled score - shift). Behind the last query the shift makes p 0.
struct Statistics {
  float shift, delta;
};
__device__ Statistics statistics_of(const BackwardPointers& pointers, const AttentionSizes& sizes, int64_t head,
                                    int query) {
  if (query >= sizes.length) return {INFINITY, 0};
  const int64_t at = head * sizes.length + query;
  return {pointers.log_sum_exp[at] * kLog2E, pointers.delta[at]};
}

// scores become p, products (grad_out . v) become ds. statistics(strip, half, n, i) and sees(strip, half, n, i) are of
// the element's query and of the element.
template <int kStrips, class StatisticsOf, class Sees>
__device__ void score_gradients(WarpSums<kStrips, kStreamRows>& scores, WarpSums<kStrips, kStreamRows>& products,
                                float factor, bool all_seen, StatisticsOf&& statistics, Sees&& sees) {
#pragma unroll
  for (int strip = 0; strip < kStrips; ++strip) {
#pragma unroll
    for (int n = 0; n < kStreamRows / kMmaCols; ++n) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const Statistics query = statistics(strip, half, n, i);
          float& score = scores.at[strip][n][2 * half + i];
          float& product = products.at[strip][n][2 * half + i];
          const float p = exp2_fast(score * factor - query.shift);
          score = all_seen || sees(strip, half, n, i) ? p : 0.0f;
          product = score * (product - query.delta);
        }
      }
    }
  }
}

// A block owns queries: grad_q = scale sum_j ds_j k_j.
template <int kHeadSize>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    flash_grad_query_kernel(BackwardPointers pointers, AttentionSizes sizes, int tiles) {
  using B = GradQuery<kHeadSize>;
  constexpr int kStrips = B::kStrips;
  const AttentionBlock block(tiles);
  const int first = (tiles - 1 - block.tile) * B::kOwn;  // the tiles with the most keys begin first
  const int row = warp_row<kStrips>(), warp_first = first + row;
  const VisibleKeys visible = sizes.visible_keys(block.head);
  const int end = first + B::kOwn < sizes.length ? first + B::kOwn : sizes.length;
  const int key_tiles = (visible.of(end - 1) + kStreamRows - 1) / kStreamRows;
  const int warp_keys = warp_first < sizes.length ? visible.of(warp_first + kStrips * kMmaRows - 1) : 0;

  __nv_bfloat16* const shared = dynamic_shared<__nv_bfloat16>();
  const typename B::OwnTile queries{shared}, grads{shared + B::OwnTile::kElements};
  const typename B::Stream stream{shared + 2 * B::OwnTile::kElements, sizes.rows(pointers.qkv, block.head, 3, 1),
                                  sizes.rows(pointers.qkv, block.head, 3, 2), visible.keys};
  if (key_tiles > 0) {
    begin_rows(queries, sizes.rows(pointers.qkv, block.head, 3, 0).from(first), sizes.length - first);
    begin_rows(grads, sizes.rows(pointers.grad_out, block.head, 1, 0).from(first), sizes.length - first);
    stream.begin(0, 0);
  }
  cp_async_commit();

  Statistics statistics[kStrips][2];
#pragma unroll
  for (int i = 0; i < 2 * kStrips; ++i) {
    statistics[i / 2][i % 2] = statistics_of(pointers, sizes, block.head, warp_first + i * 8 + sum_row());
  }
  typename B::Sums sums;
  sums.set_zero();
  for (int tile = 0; tile < key_tiles; ++tile) {
    cp_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before, whose place the next one takes
    if (tile + 1 < key_tiles) stream.begin(tile + 1, (tile + 1) * kStreamRows);
    cp_async_commit();
    const int first_key = tile * kStreamRows;
    if (first_key >= warp_keys) continue;
    typename B::Scores scores, products;
    multiply_rows(scores, queries, row, stream.first_tile(tile));
    multiply_rows(products, grads, row, stream.second_tile(tile));
    score_gradients(
        scores, products, sizes.scale * kLog2E, first_key + kStreamRows <= visible.of(warp_first),
        [&](int strip, int half, int, int) { return statistics[strip][half]; },
        [&](int strip, int half, int n, int i) {
          const int query = warp_first + strip * kMmaRows + half * 8 + sum_row();
          return first_key + n * kMmaCols + sum_col() + i < visible.of(query);
        });
    add_weighted(sums, products, stream.first_tile(tile));
  }
  store_rows(sizes.rows(pointers.grad_qkv, block.head, 3, 0), first, sizes.length, queries, row, sums,
             [&](int, int) { return sizes.scale; });
}

// A block owns keys: grad_v = sum_i p_i grad_out_i, grad_k = scale sum_i ds_i q_i over the queries that see them, which
// are all from the first one on. Rows of the scores are keys here, columns are queries.
template <int kHeadSize>
__global__ void __launch_bounds__(kAttentionThreads)
    flash_grad_key_kernel(BackwardPointers pointers, AttentionSizes sizes, int tiles) {
  using B = GradKey<kHeadSize>;
  constexpr int kStrips = B::kStrips;
  const AttentionBlock block(tiles);
  const int first = block.tile * B::kOwn;
  const int row = warp_row<kStrips>(), warp_first = first + row, warp_end = warp_first + kStrips * kMmaRows;
  const VisibleKeys visible = sizes.visible_keys(block.head);
  const int begin = first < visible.prefix ? 0 : first / kStreamRows * kStreamRows;
  const int query_tiles = first < visible.keys ? (sizes.length - begin + kStreamRows - 1) / kStreamRows : 0;

  __nv_bfloat16* const shared = dynamic_shared<__nv_bfloat16>();
  const typename B::OwnTile keys{shared}, values{shared + B::OwnTile::kElements};
  const typename B::Stream stream{shared + 2 * B::OwnTile::kElements, sizes.rows(pointers.qkv, block.head, 3, 0),
                                  sizes.rows(pointers.grad_out, block.head, 1, 0), sizes.length};
  Statistics* const statistics = reinterpret_cast<Statistics*>(stream.shared + B::Stream::kElements);
  if (query_tiles > 0) {
    begin_rows(keys, sizes.rows(pointers.qkv, block.head, 3, 1).from(first), visible.keys - first);
    begin_rows(values, sizes.rows(pointers.qkv, block.head, 3, 2).from(first), visible.keys - first);
    stream.begin(0, begin);
  }
  cp_async_commit();

  // Of a tile's queries; fetched by the first threads while the tile before is worked on.
  Statistics next{};
  const auto fetch_statistics = [&](int tile) {
    if (threadIdx.x >= kStreamRows) return;
    next = statistics_of(pointers, sizes, block.head, begin + tile * kStreamRows + static_cast<int>(threadIdx.x));
  };
  fetch_statistics(0);
  typename B::Sums key_sums, value_sums;
  key_sums.set_zero();
  value_sums.set_zero();
  for (int tile = 0; tile < query_tiles; ++tile) {
    Statistics* const of_queries = statistics + tile % 2 * kStreamRows;
    if (threadIdx.x < kStreamRows) of_queries[threadIdx.x] = next;
    cp_async_wait<0>();
    __syncthreads();  // this tile is there, and nobody reads the one before, whose place the next one takes
    const int first_query = begin + tile * kStreamRows;
    if (tile + 1 < query_tiles) {
      stream.begin(tile + 1, first_query + kStreamRows);
      fetch_statistics(tile + 1);
    }
    cp_async_commit();
    if (warp_first >= visible.of(first_query + kStreamRows - 1)) continue;
    typename B::Scores scores, products;
    multiply_rows(scores, keys, row, stream.first_tile(tile));
    multiply_rows(products, values, row, stream.second_tile(tile));
    score_gradients(
        scores, products, sizes.scale * kLog2E, warp_end <= visible.of(first_query),
        [&](int, int, int n, int i) { return of_queries[n * kMmaCols + sum_col() + i]; },
        [&](int strip, int half, int n, int i) {
          const int key = warp_first + strip * kMmaRows + half * 8 + sum_row();
          return key < visible.of(first_query + n * kMmaCols + sum_col() + i);
        });
    add_weighted(value_sums, scores, stream.second_tile(tile));
    add_weighted(key_sums, products, stream.first_tile(tile));
  }
  store_rows(sizes.rows(pointers.grad_qkv, block.head, 3, 1), first, sizes.length, keys, row, key_sums,
             [&](int, int) { return sizes.scale; });
  store_rows(sizes.rows(pointers.grad_qkv, block.head, 3, 2), first, sizes.length, values, row, value_sums,
             [&](int, int) { return 1.0f; });
}

}  // namespace

void flash_attention_backward(Context& ctx, const ops::AttentionBackward& args, const Tensor& delta) {
  const AttentionSizes sizes = attention_sizes(args.shape, args.prefix_lengths, args.key_lengths);
  const BackwardPointers pointers{elements<bfloat16>(args.grad_qkv), elements<const bfloat16>(args.grad_out),
                                  elements<const bfloat16>(args.qkv), elements<const float>(args.log_sum_exp),
                                  elements<const float>(delta)};
  dispatch_head_size(args.shape.head_size, [&](auto head_size) {
    using Query = GradQuery<head_size()>;
    using Key = GradKey<head_size()>;
    const auto run = [&](int own_rows, size_t shared_bytes, auto kernel) {
      const unsigned tiles = block_count(sizes.length, own_rows);
      launch({.grid = block_count(sizes.head_count() * tiles, 1),
              .block = kAttentionThreads,
              .shared_bytes = shared_bytes,
              .stream = stream_of(ctx)},
             kernel, pointers, sizes, tiles);
    };
    run(Query::kOwn, Query::kTileBytes, flash_grad_query_kernel<head_size()>);
    run(Key::kOwn, Key::kTileBytes + 2 * kStreamRows * sizeof(Statistics), flash_grad_key_kernel<head_size()>);
  });
}

}  // namespace mhmoe::cuda
