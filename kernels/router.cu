#include "ops/router.h"

#include "kernels/kernels.h"
#include "kernels/partials.h"
#include "kernels/reduce.cuh"
#include "kernels/row_lanes.cuh"
#include "kernels/vector.cuh"

// One warp a row, which it keeps in shared memory: lane l owns the experts l, l + 32, ... and nobody else reads or
// writes them. Accesses to global memory are 4 bytes a lane, 128 a warp, side by side: rows of E floats need not begin
// where 16-byte accesses may.
namespace mhmoe::cuda {
namespace {

constexpr int64_t kFewestChunkRows = 64;  // of one block, which sums them up
constexpr int64_t kMostChunks = 512;

struct Sizes {
  int64_t rows, experts, top_k;
};

// A total order over (value, index): the larger value first, of equals the lower index; NaN has its place too, so that
// k distinct experts are always found. Never 0.
__device__ uint64_t rank_key(float value, int64_t index) {
  const uint32_t bits = __float_as_uint(value);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

__device__ int64_t index_of_key(uint64_t key) {
  return 0xffffffffu - static_cast<uint32_t>(key);
}

__device__ float value_of_key(uint64_t key) {
  const auto ordered = static_cast<uint32_t>(key >> 32);
  return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}

// row: in shared memory, becomes the softmax, which is also written to probabilities and added to sum.
__device__ void softmax_row(float* row, float* probabilities, float* sum, const float* logits, int64_t experts,
                            int64_t lane) {
  float largest = -INFINITY;
  for (int64_t e = lane; e < experts; e += kWarpSize) {
    row[e] = logits[e];
    largest = fmaxf(largest, row[e]);
  }
  largest = warp_max(largest);
  float total = 0;
  for (int64_t e = lane; e < experts; e += kWarpSize) {
    row[e] = expf(row[e] - largest);
    total += row[e];
  }
  const float scale = 1.0f / warp_sum(total);
  for (int64_t e = lane; e < experts; e += kWarpSize) {
    const float probability = row[e] * scale;
    row[e] = probability;
    probabilities[e] = probability;
    sum[e] += probability;
  }
}

struct Choices {
  int32_t* expert_index;
  float* gate_weight;
  bool normalize;
  int64_t counted;  // of each row's choices, for the load
};

// k times the first in rank below the last one chosen. Choice j is written, and divided at the end, by lane j mod 32.
__device__ void choose(const Choices& choices, int32_t* count, const float* row, const Sizes& sizes, int64_t lane) {
  uint64_t last = ~uint64_t{0};
  float chosen_sum = 0;
  for (int64_t j = 0; j < sizes.top_k; ++j) {
    uint64_t best = 0;
    for (int64_t e = lane; e < sizes.experts; e += kWarpSize) {
      const uint64_t key = rank_key(row[e], e);
      if (key < last && key > best) best = key;
    }
    last = warp_max(best);
    const float probability = value_of_key(last);
    chosen_sum += probability;
    if (lane != j % kWarpSize) continue;
    const int64_t expert = index_of_key(last);
    choices.expert_index[j] = static_cast<int32_t>(expert);
    choices.gate_weight[j] = probability;
    if (j < choices.counted) atomicAdd(count + expert, 1);
  }
  if (!choices.normalize) return;
  for (int64_t j = lane; j < sizes.top_k; j += kWarpSize) choices.gate_weight[j] /= chosen_sum;
}

// Sums over the rows of each chunk: [chunks, E].
struct BalancePartials {
  float* probability;
  int32_t* count;
};

// One block a chunk of rows. Shared memory: each warp's row, each warp's sum of rows, the block's counts of choices.
__global__ void route_kernel(float* probabilities, BalancePartials partial, Choices choices, const float* logits,
                             Sizes sizes, int64_t chunk_rows) {
  const int64_t experts = sizes.experts, warps = blockDim.x / kWarpSize, warp = threadIdx.x / kWarpSize;
  const int64_t lane = threadIdx.x % kWarpSize;
  auto* rows = dynamic_shared<float>();
  float *sums = rows + warps * experts, *row = rows + warp * experts, *sum = sums + warp * experts;
  auto* count = reinterpret_cast<int32_t*>(sums + warps * experts);
  for (int64_t e = lane; e < experts; e += kWarpSize) sum[e] = 0;
  for (int64_t e = threadIdx.x; e < experts; e += blockDim.x) count[e] = 0;
  __syncthreads();

  const int64_t begin = blockIdx.x * chunk_rows;
  const int64_t end = begin + chunk_rows < sizes.rows ? begin + chunk_rows : sizes.rows;
  for (int64_t s = begin + warp; s < end; s += warps) {
    softmax_row(row, probabilities + s * experts, sum, logits + s * experts, experts, lane);
    const Choices own = {choices.expert_index + s * sizes.top_k, choices.gate_weight + s * sizes.top_k,
                         choices.normalize, choices.counted};
    choose(own, count, row, sizes, lane);
  }
  __syncthreads();
  for (int64_t e = threadIdx.x; e < experts; e += blockDim.x) {
    float total = 0;
    for (int64_t w = 0; w < warps; ++w) total += sums[w * experts + e];
    partial.probability[blockIdx.x * experts + e] = total;
    partial.count[blockIdx.x * experts + e] = count[e];
  }
}

// One block a tile of experts: the chunks are added in order within segments, and the segments in order.
// tile_balance[tile] = sum over its experts of load share times summed probability.
__global__ void share_kernel(float* share, float* tile_balance, BalancePartials partial, int64_t chunks, Sizes sizes,
                             int64_t counted) {
  __shared__ float probability_sum[kMostSegments][kTile];
  __shared__ int32_t count_sum[kMostSegments][kTile];
  const int64_t e = int64_t{blockIdx.x} * kTile + threadIdx.x;
  float probability = 0;
  int32_t count = 0;
  if (e < sizes.experts) {
    const auto [begin, end] = segment_of(chunks);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      probability += partial.probability[chunk * sizes.experts + e];
      count += partial.count[chunk * sizes.experts + e];
    }
  }
  probability_sum[threadIdx.y][threadIdx.x] = probability;
  count_sum[threadIdx.y][threadIdx.x] = count;
  __syncthreads();
  if (threadIdx.y > 0) return;
  for (unsigned s = 1; s < blockDim.y; ++s) {
    probability += probability_sum[s][threadIdx.x];
    count += count_sum[s][threadIdx.x];
  }
  const float load = static_cast<float>(count) / static_cast<float>((sizes.rows > 0 ? sizes.rows : 1) * counted);
  if (e < sizes.experts) share[e] = load;
  const float balance = warp_sum(load * probability);
  if (threadIdx.x == 0) tile_balance[blockIdx.x] = balance;
}

// One warp.
__global__ void balance_loss_kernel(float* balance_loss, const float* tile_balance, int64_t tiles, float scale) {
  float sum = 0;
  for (int64_t tile = threadIdx.x; tile < tiles; tile += kWarpSize) sum += tile_balance[tile];
  sum = warp_sum(sum);
  if (threadIdx.x == 0) balance_loss[0] = scale * sum;
}

struct BackwardScales {
  bool normalize;
  float balance;  // balance_scale * E / S: the gradient of the balance loss with respect to p[s, e] over share[e]
};

// One warp a row. With dp = d loss / d p: grad_logits = p * (dp - sum_e p dp). Shared memory: each warp's dp.
__global__ void router_backward_kernel(float* grad_logits, const float* grad_gate, const float* probabilities,
                                       const int32_t* expert_index, const float* share, Sizes sizes,
                                       BackwardScales scales) {
  const int64_t experts = sizes.experts, warp = threadIdx.x / kWarpSize, lane = threadIdx.x % kWarpSize;
  const int64_t s = int64_t{blockIdx.x} * (blockDim.x / kWarpSize) + warp;
  if (s >= sizes.rows) return;
  float* grad_probability = dynamic_shared<float>() + warp * experts;
  grad_logits += s * experts;
  probabilities += s * experts;
  grad_gate += s * sizes.top_k;
  expert_index += s * sizes.top_k;
  for (int64_t e = lane; e < experts; e += kWarpSize) grad_probability[e] = scales.balance * share[e];

  // With normalised gates g_j = p_j / sum of the chosen p: dp_j = (grad_j - sum_m grad_m g_m) / sum.
  float divisor = 1, shift = 0;
  if (scales.normalize) {
    float sum = 0, weighted = 0;
    for (int64_t j = lane; j < sizes.top_k; j += kWarpSize) {
      const float probability = probabilities[expert_index[j]];
      sum += probability;
      weighted += grad_gate[j] * probability;
    }
    divisor = warp_sum(sum);
    shift = warp_sum(weighted) / divisor;
  }
  __syncwarp();  // the chosen experts are other lanes' too
  for (int64_t j = lane; j < sizes.top_k; j += kWarpSize) {
    grad_probability[expert_index[j]] += (grad_gate[j] - shift) / divisor;
  }
  __syncwarp();  // and grad_logits may be `probabilities`: every lane has read the chosen ones
  float dot = 0;
  for (int64_t e = lane; e < experts; e += kWarpSize) dot += probabilities[e] * grad_probability[e];
  dot = warp_sum(dot);
  for (int64_t e = lane; e < experts; e += kWarpSize) {
    grad_logits[e] = probabilities[e] * (grad_probability[e] - dot);
  }
}

Sizes sizes_of(const ops::RouterForward& args) {
  return {args.logits.rows(), args.logits.cols(), args.expert_index.cols()};
}

int64_t chunk_rows_of(const Sizes& sizes) {
  return std::max(kFewestChunkRows, (sizes.rows + kMostChunks - 1) / kMostChunks);
}

// f32 and i32 [chunks, E]; f32 [tiles]
struct BalanceScratch {
  Tensor probability, count, tile_balance;
};

BalanceScratch allocate_scratch(Context& ctx, const Sizes& sizes) {
  const int64_t chunks = block_count(sizes.rows, chunk_rows_of(sizes));
  return {ctx.step().allocate("router_probability_partials", DType::kF32, {chunks, sizes.experts}),
          ctx.step().allocate("router_count_partials", DType::kI32, {chunks, sizes.experts}),
          ctx.step().allocate("router_tile_balance", DType::kF32, {block_count(sizes.experts, kTile)})};
}

}  // namespace

void router_forward_scratch(Context& ctx, const ops::RouterForward& args) {
  allocate_scratch(ctx, sizes_of(args));
}

void router_forward(Context& ctx, const ops::RouterForward& args) {
  const Sizes sizes = sizes_of(args);
  const auto stream = stream_of(ctx);
  const int64_t counted = args.counts == ops::BalanceCounts::kFirstChoice ? 1 : sizes.top_k;
  const ArenaScope scope(ctx.step());
  const auto [probability, count, tile_balance] = allocate_scratch(ctx, sizes);
  const BalancePartials partial = {elements<float>(probability), elements<int32_t>(count)};
  const int64_t chunks = probability.rows(), tiles = tile_balance.count();
  const auto row_bytes = static_cast<int64_t>(sizeof(float)) * sizes.experts;
  const int64_t warps = warps_that_keep(2 * row_bytes, row_bytes);
  launch({.grid = static_cast<unsigned>(chunks),
          .block = static_cast<unsigned>(warps * kWarpSize),
          .shared_bytes = static_cast<size_t>((2 * warps + 1) * row_bytes),
          .stream = stream},
         route_kernel, elements<float>(args.probabilities), partial,
         Choices{elements<int32_t>(args.expert_index), elements<float>(args.gate_weight), args.normalize, counted},
         elements<const float>(args.logits), sizes, chunk_rows_of(sizes));
  launch({.grid = static_cast<unsigned>(tiles), .block = tile_block(chunks), .stream = stream}, share_kernel,
         elements<float>(args.share), elements<float>(tile_balance), partial, chunks, sizes, counted);
  const float scale = static_cast<float>(sizes.experts) / static_cast<float>(std::max<int64_t>(sizes.rows, 1));
  launch({.grid = 1, .block = kWarpSize, .stream = stream}, balance_loss_kernel, elements<float>(args.balance_loss),
         elements<const float>(tile_balance), tiles, scale);
}

void router_backward(Context& ctx, const ops::RouterBackward& args) {
  const Sizes sizes = {args.probabilities.rows(), args.probabilities.cols(), args.expert_index.cols()};
  if (sizes.rows == 0) return;
  const float balance = args.balance_scale * static_cast<float>(sizes.experts) / static_cast<float>(sizes.rows);
  const auto row_bytes = static_cast<int64_t>(sizeof(float)) * sizes.experts;
  const int64_t warps = warps_that_keep(row_bytes);
  launch({.grid = block_count(sizes.rows, warps),
          .block = static_cast<unsigned>(warps * kWarpSize),
          .shared_bytes = static_cast<size_t>(warps * row_bytes),
          .stream = stream_of(ctx)},
         router_backward_kernel, elements<float>(args.grad_logits), elements<const float>(args.grad_gate),
         elements<const float>(args.probabilities), elements<const int32_t>(args.expert_index),
         elements<const float>(args.share), sizes, BackwardScales{args.normalize, balance});
}

}  // namespace mhmoe::cuda
