#include "ops/router.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpSize;
constexpr int kChunkRows = 128;  // rows summed in order by one thread: part of the result's definition

struct Sizes {
  int64_t rows, experts, top_k;
};

// A total order over (value, index): the larger value first, of equals the lower index; NaN has its place too, so that
// k distinct experts are always found. Never 0.
__device__ uint64_t rank_key(float value, int64_t index) {
  const auto bits = static_cast<uint32_t>(__float_as_int(value));
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

__device__ int64_t index_of_key(uint64_t key) {
  return 0xffffffffu - static_cast<uint32_t>(key);
}

// One warp a row. Lane l owns the experts l, l + 32, ...: nobody else reads or writes them.
__device__ void softmax_row(float* probabilities, const float* logits, int64_t experts, int64_t lane) {
  float largest = -INFINITY;
  for (int64_t e = lane; e < experts; e += kWarpSize) largest = fmaxf(largest, logits[e]);
  largest = warp_max(largest);
  float sum = 0;
  for (int64_t e = lane; e < experts; e += kWarpSize) {
    const float value = expf(logits[e] - largest);
    probabilities[e] = value;
    sum += value;
  }
  const float scale = 1.0f / warp_sum(sum);
  for (int64_t e = lane; e < experts; e += kWarpSize) probabilities[e] *= scale;
}

// One warp a row: softmax, then k times the first in rank below the last one chosen.
__global__ void route_kernel(float* probabilities, int32_t* expert_index, float* gate_weight, const float* logits,
                             Sizes sizes, bool normalize) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= sizes.rows) return;
  const int64_t lane = threadIdx.x % kWarpSize;
  probabilities += row * sizes.experts;
  expert_index += row * sizes.top_k;
  gate_weight += row * sizes.top_k;
  softmax_row(probabilities, logits + row * sizes.experts, sizes.experts, lane);

  uint64_t last = ~uint64_t{0};
  float chosen_sum = 0;
  for (int64_t j = 0; j < sizes.top_k; ++j) {
    uint64_t best = 0;
    for (int64_t e = lane; e < sizes.experts; e += kWarpSize) {
      const uint64_t key = rank_key(probabilities[e], e);
      if (key < last && key > best) best = key;
    }
    last = warp_max(best);
    const int64_t expert = index_of_key(last);
    if (expert % kWarpSize == lane) {
      expert_index[j] = static_cast<int32_t>(expert);
      gate_weight[j] = probabilities[expert];
    }
    const float mine = expert % kWarpSize == lane ? probabilities[expert] : 0.0f;
    chosen_sum += warp_sum(mine);
  }
  if (!normalize) return;
  __syncwarp();  // the lanes that chose wrote gate_weight
  for (int64_t j = lane; j < sizes.top_k; j += kWarpSize) gate_weight[j] /= chosen_sum;
}

// partial_probability, partial_count: [chunks, E]. One thread an expert and chunk of rows.
__global__ void balance_partials_kernel(float* partial_probability, int32_t* partial_count, const float* probabilities,
                                        const int32_t* expert_index, Sizes sizes, int64_t counted) {
  const int64_t e = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (e >= sizes.experts) return;
  const int64_t begin = int64_t{blockIdx.y} * kChunkRows;
  const int64_t end = begin + kChunkRows < sizes.rows ? begin + kChunkRows : sizes.rows;
  float sum = 0;
  int32_t count = 0;
  for (int64_t s = begin; s < end; ++s) {
    sum += probabilities[s * sizes.experts + e];
    for (int64_t j = 0; j < counted; ++j) count += expert_index[s * sizes.top_k + j] == e;
  }
  partial_probability[blockIdx.y * sizes.experts + e] = sum;
  partial_count[blockIdx.y * sizes.experts + e] = count;
}

// One block: the chunks are added in order for every expert, then the experts over the block in a fixed order.
__global__ void balance_kernel(float* share, float* balance_loss, const float* partial_probability,
                               const int32_t* partial_count, int64_t chunks, Sizes sizes, int64_t counted) {
  const float rows = static_cast<float>(sizes.rows > 0 ? sizes.rows : 1);
  float products = 0;
  for (int64_t e = threadIdx.x; e < sizes.experts; e += kThreads) {
    float probability = 0;
    int64_t count = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      probability += partial_probability[chunk * sizes.experts + e];
      count += partial_count[chunk * sizes.experts + e];
    }
    const float load = static_cast<float>(count) / (rows * static_cast<float>(counted));
    share[e] = load;
    products += load * (probability / rows);
  }
  const float total = block_sum<kThreads>(products);
  if (threadIdx.x == 0) balance_loss[0] = static_cast<float>(sizes.experts) * total;
}

struct BackwardScales {
  bool normalize;
  float balance;  // balance_scale * E / S: the gradient of the balance loss with respect to p[s, e] over share[e]
};

// One warp a row. With dp = d loss / d p: grad_logits = p * (dp - sum_e p dp).
__global__ void router_backward_kernel(float* grad_logits, const float* grad_gate, const float* probabilities,
                                       const int32_t* expert_index, const float* share, Sizes sizes,
                                       BackwardScales scales) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= sizes.rows) return;
  const int64_t lane = threadIdx.x % kWarpSize;
  grad_logits += row * sizes.experts;
  probabilities += row * sizes.experts;
  grad_gate += row * sizes.top_k;
  expert_index += row * sizes.top_k;

  // With normalised gates g_j = p_j / sum of the chosen p: dp_j = (grad_j - sum_m grad_m g_m) / sum.
  float divisor = 1, shift = 0;
  if (scales.normalize) {
    float sum = 0, weighted = 0;
    for (int64_t j = 0; j < sizes.top_k; ++j) {
      const float probability = probabilities[expert_index[j]];
      sum += probability;
      weighted += grad_gate[j] * probability;
    }
    divisor = sum;
    shift = weighted / sum;
  }
  const auto grad_probability = [&](int64_t e) {
    float grad = scales.balance * share[e];
    for (int64_t j = 0; j < sizes.top_k; ++j) {
      if (expert_index[j] == e) grad += (grad_gate[j] - shift) / divisor;
    }
    return grad;
  };

  float dot = 0;
  for (int64_t e = lane; e < sizes.experts; e += kWarpSize) dot += probabilities[e] * grad_probability(e);
  dot = warp_sum(dot);
  __syncwarp();  // grad_logits may be `probabilities`: every lane has read the chosen ones before any is overwritten
  for (int64_t e = lane; e < sizes.experts; e += kWarpSize) {
    grad_logits[e] = probabilities[e] * (grad_probability(e) - dot);
  }
}

// f32 and i32 [chunks, E]
struct BalancePartials {
  Tensor probability, count;
};

BalancePartials allocate_partials(Context& ctx, const Sizes& sizes) {
  const int64_t chunks = block_count(sizes.rows, kChunkRows);
  return {ctx.step().allocate("router_probability_partials", DType::kF32, {chunks, sizes.experts}),
          ctx.step().allocate("router_count_partials", DType::kI32, {chunks, sizes.experts})};
}

Sizes sizes_of(const ops::RouterForward& args) {
  return {args.logits.rows(), args.logits.cols(), args.expert_index.cols()};
}

}  // namespace

void router_forward_scratch(Context& ctx, const ops::RouterForward& args) {
  allocate_partials(ctx, sizes_of(args));
}

void router_forward(Context& ctx, const ops::RouterForward& args) {
  const Sizes sizes = sizes_of(args);
  launch({.grid = block_count(sizes.rows, kRowsPerBlock), .block = kThreads, .stream = stream_of(ctx)}, route_kernel,
         elements<float>(args.probabilities), elements<int32_t>(args.expert_index), elements<float>(args.gate_weight),
         elements<const float>(args.logits), sizes, args.normalize);

  const ArenaScope scope(ctx.step());
  const auto [probability, count] = allocate_partials(ctx, sizes);
  const int64_t chunks = probability.rows();
  const int64_t counted = args.counts == ops::BalanceCounts::kFirstChoice ? 1 : sizes.top_k;
  launch({.grid = dim3(block_count(sizes.experts, kThreads), static_cast<unsigned>(chunks)),
          .block = kThreads,
          .stream = stream_of(ctx)},
         balance_partials_kernel, elements<float>(probability), elements<int32_t>(count),
         elements<const float>(args.probabilities), elements<const int32_t>(args.expert_index), sizes, counted);
  launch({.grid = 1, .block = kThreads, .stream = stream_of(ctx)}, balance_kernel, elements<float>(args.share),
         elements<float>(args.balance_loss), elements<const float>(probability), elements<const int32_t>(count), chunks,
         sizes, counted);
}

void router_backward(Context& ctx, const ops::RouterBackward& args) {
  const Sizes sizes = {args.probabilities.rows(), args.probabilities.cols(), args.expert_index.cols()};
  if (sizes.rows == 0) return;
  const float balance = args.balance_scale * static_cast<float>(sizes.experts) / static_cast<float>(sizes.rows);
  launch({.grid = block_count(sizes.rows, kRowsPerBlock), .block = kThreads, .stream = stream_of(ctx)},
         router_backward_kernel, elements<float>(args.grad_logits), elements<const float>(args.grad_gate),
         elements<const float>(args.probabilities), elements<const int32_t>(args.expert_index),
         elements<const float>(args.share), sizes, BackwardScales{args.normalize, balance});
}

}  // namespace mhmoe::cuda
