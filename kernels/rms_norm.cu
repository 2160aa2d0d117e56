#include "ops/rms_norm.h"

#include "kernels/kernels.h"
#include "kernels/partials.h"
#include "kernels/reduce.cuh"
#include "kernels/row_lanes.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpSize;
constexpr int kPack = 4;
// Rows whose share of the weight's gradient one block adds up: part of the result's definition.
constexpr int64_t kFewestChunkRows = 32;
constexpr int64_t kMostChunks = 512;

// One warp a row; the row is read twice and its second read comes from cache.
template <int kWidth, class Y>
__global__ void rms_norm_forward_kernel(Y* y, float* inv_rms, const float* x, const float* weight, int64_t rows,
                                        int64_t cols, float eps) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= rows) return;
  const int64_t lane = threadIdx.x % kWarpSize;
  x += row * cols;
  y += row * cols;

  float sum_squares = 0;
  for (int64_t c = lane * kWidth; c < cols; c += kWarpSize * kWidth) {
    const auto values = load<kWidth>(x + c);
    for (int i = 0; i < kWidth; ++i) sum_squares += values[i] * values[i];
  }
  const float scale = 1.0f / sqrtf(warp_sum(sum_squares) / static_cast<float>(cols) + eps);

  if (lane == 0) inv_rms[row] = scale;
  for (int64_t c = lane * kWidth; c < cols; c += kWarpSize * kWidth) {
    auto values = load<kWidth>(x + c);
    const auto weights = load<kWidth>(weight + c);
    for (int i = 0; i < kWidth; ++i) values[i] *= scale * weights[i];
    store<kWidth>(y + c, values);
  }
}

// Of one row, by one warp: grad_x += inv_rms * (weight * grad_y - x * inv_rms^2 * mean(weight * grad_y * x));
// grad_weight, of which each lane reads and writes only its own elements, += grad_y * x * inv_rms.
template <int kWidth, class Y>
__device__ void backward_row(float* grad_x, float* grad_weight, const Y* grad_y, const float* x, float inv_rms,
                             const float* weight, int64_t cols) {
  const int64_t lane = threadIdx.x % kWarpSize;
  float dot = 0;
  for (int64_t c = lane * kWidth; c < cols; c += kWarpSize * kWidth) {
    const auto values = load<kWidth>(x + c);
    const auto weights = load<kWidth>(weight + c);
    const auto grads = load<kWidth>(grad_y + c);
    for (int i = 0; i < kWidth; ++i) dot += values[i] * weights[i] * grads[i];
  }
  const float pull = warp_sum(dot) / static_cast<float>(cols) * inv_rms * inv_rms;
  for (int64_t c = lane * kWidth; c < cols; c += kWarpSize * kWidth) {  // these reads come from cache
    const auto values = load<kWidth>(x + c);
    const auto weights = load<kWidth>(weight + c);
    const auto grads = load<kWidth>(grad_y + c);
    auto out = load<kWidth>(grad_x + c);
    auto sum = load<kWidth>(grad_weight + c);
    for (int i = 0; i < kWidth; ++i) {
      out[i] += inv_rms * (weights[i] * grads[i] - values[i] * pull);
      sum[i] += grads[i] * (values[i] * inv_rms);
    }
    store<kWidth>(grad_x + c, out);
    store<kWidth>(grad_weight + c, sum);
  }
}

struct Shape {
  int64_t rows, cols, chunk_rows;
};

// One block a chunk of rows. partial: [chunks, cols]. Shared memory: each warp's sum over its rows.
template <int kWidth, class Y>
__global__ void rms_norm_backward_kernel(float* grad_x, float* partial, const Y* grad_y, const float* x,
                                         const float* inv_rms, const float* weight, Shape shape) {
  auto* sums = dynamic_shared<float>();
  const int64_t cols = shape.cols, warps = blockDim.x / kWarpSize, warp = threadIdx.x / kWarpSize;
  for (int64_t i = threadIdx.x; i < warps * cols; i += blockDim.x) sums[i] = 0;
  __syncthreads();
  const int64_t begin = blockIdx.x * shape.chunk_rows;
  const int64_t end = begin + shape.chunk_rows < shape.rows ? begin + shape.chunk_rows : shape.rows;
  for (int64_t row = begin + warp; row < end; row += warps) {
    backward_row<kWidth>(grad_x + row * cols, sums + warp * cols, grad_y + row * cols, x + row * cols, inv_rms[row],
                         weight, cols);
  }
  __syncthreads();
  for (int64_t c = threadIdx.x; c < cols; c += blockDim.x) {
    float total = 0;
    for (int64_t w = 0; w < warps; ++w) total += sums[w * cols + c];
    partial[blockIdx.x * cols + c] = total;
  }
}

Shape shape_of(const Tensor& x) {
  return {x.rows(), x.cols(), std::max(kFewestChunkRows, (x.rows() + kMostChunks - 1) / kMostChunks)};
}

// f32 [chunks, cols]
Tensor allocate_partials(Context& ctx, const Shape& shape) {
  return ctx.step().allocate("rms_norm_grad_weight_partials", DType::kF32,
                             {block_count(shape.rows, shape.chunk_rows), shape.cols});
}

}  // namespace

void rms_norm_forward(Context& ctx, const ops::RmsNormForward& args) {
  const int64_t rows = args.x.rows(), cols = args.x.cols();
  dispatch_float(args.y.dtype, [&](auto zero) {
    using Y = decltype(zero);
    dispatch_width<kPack>(cols, {args.y, args.x, args.weight}, [&](auto width) {
      launch({.grid = block_count(rows, kRowsPerBlock), .block = kThreads, .stream = stream_of(ctx)},
             rms_norm_forward_kernel<width(), typename DeviceElement<Y>::Type>, elements<Y>(args.y),
             elements<float>(args.inv_rms), elements<const float>(args.x), elements<const float>(args.weight), rows,
             cols, args.eps);
    });
  });
}

void rms_norm_backward_scratch(Context& ctx, const ops::RmsNormBackward& args) {
  allocate_partials(ctx, shape_of(args.x));
}

void rms_norm_backward(Context& ctx, const ops::RmsNormBackward& args) {
  const Shape shape = shape_of(args.x);
  const ArenaScope scope(ctx.step());
  const Tensor partial = allocate_partials(ctx, shape);
  const auto row_bytes = static_cast<int64_t>(sizeof(float)) * shape.cols;
  const int64_t warps = warps_that_keep(row_bytes);
  dispatch_float(args.grad_y.dtype, [&](auto zero) {
    using Y = decltype(zero);
    dispatch_width<kPack>(shape.cols, {args.grad_x, args.grad_y, args.x, args.weight}, [&](auto width) {
      launch({.grid = static_cast<unsigned>(partial.rows()),
              .block = static_cast<unsigned>(warps * kWarpSize),
              .shared_bytes = static_cast<size_t>(warps * row_bytes),
              .stream = stream_of(ctx)},
             rms_norm_backward_kernel<width(), typename DeviceElement<Y>::Type>, elements<float>(args.grad_x),
             elements<float>(partial), elements<const Y>(args.grad_y), elements<const float>(args.x),
             elements<const float>(args.inv_rms), elements<const float>(args.weight), shape);
    });
  });
  add_partials(ctx, args.grad_weight, partial);
}

}  // namespace mhmoe::cuda
