#include "ops/rms_norm.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/partials.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpSize;
constexpr int kPack = 4;
constexpr int kChunkRows = 128;  // rows summed in order by one thread: part of the result's definition

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

// One warp a row: grad_x += inv_rms * (weight * grad_y - x * inv_rms^2 * mean(weight * grad_y * x)).
template <int kWidth, class Y>
__global__ void rms_norm_grad_x_kernel(float* grad_x, const Y* grad_y, const float* x, const float* inv_rms,
                                       const float* weight, int64_t rows, int64_t cols) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= rows) return;
  const int64_t lane = threadIdx.x % kWarpSize;
  x += row * cols;
  grad_x += row * cols;
  grad_y += row * cols;

  float dot = 0;
  for (int64_t c = lane * kWidth; c < cols; c += kWarpSize * kWidth) {
    const auto values = load<kWidth>(x + c);
    const auto weights = load<kWidth>(weight + c);
    const auto grads = load<kWidth>(grad_y + c);
    for (int i = 0; i < kWidth; ++i) dot += values[i] * weights[i] * grads[i];
  }
  const float scale = inv_rms[row];
  const float pull = warp_sum(dot) / static_cast<float>(cols) * scale * scale;

  for (int64_t c = lane * kWidth; c < cols; c += kWarpSize * kWidth) {
    const auto values = load<kWidth>(x + c);
    const auto weights = load<kWidth>(weight + c);
    const auto grads = load<kWidth>(grad_y + c);
    auto out = load<kWidth>(grad_x + c);
    for (int i = 0; i < kWidth; ++i) out[i] += scale * (weights[i] * grads[i] - values[i] * pull);
    store<kWidth>(grad_x + c, out);
  }
}

// partial: [chunks, cols]. One thread a column and chunk of rows, so that neighbours read neighbours.
template <class Y>
__global__ void rms_norm_grad_weight_kernel(float* partial, const Y* grad_y, const float* x, const float* inv_rms,
                                            int64_t rows, int64_t cols) {
  const int64_t c = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (c >= cols) return;
  const int64_t begin = int64_t{blockIdx.y} * kChunkRows;
  const int64_t end = begin + kChunkRows < rows ? begin + kChunkRows : rows;
  float sum = 0;
  for (int64_t r = begin; r < end; ++r) sum += to_float(grad_y[r * cols + c]) * (x[r * cols + c] * inv_rms[r]);
  partial[blockIdx.y * cols + c] = sum;
}

// f32 [chunks, cols]
Tensor allocate_partials(Context& ctx, const Tensor& x) {
  return ctx.step().allocate("rms_norm_grad_weight_partials", DType::kF32,
                             {block_count(x.rows(), kChunkRows), x.cols()});
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
  allocate_partials(ctx, args.x);
}

void rms_norm_backward(Context& ctx, const ops::RmsNormBackward& args) {
  const int64_t rows = args.x.rows(), cols = args.x.cols();
  const ArenaScope scope(ctx.step());
  const Tensor partial = allocate_partials(ctx, args.x);
  const int64_t chunks = partial.rows();
  const unsigned column_blocks = block_count(cols, kThreads);
  dispatch_float(args.grad_y.dtype, [&](auto zero) {
    using Y = decltype(zero);
    using Element = typename DeviceElement<Y>::Type;
    dispatch_width<kPack>(cols, {args.grad_x, args.grad_y, args.x, args.weight}, [&](auto width) {
      launch({.grid = block_count(rows, kRowsPerBlock), .block = kThreads, .stream = stream_of(ctx)},
             rms_norm_grad_x_kernel<width(), Element>, elements<float>(args.grad_x), elements<const Y>(args.grad_y),
             elements<const float>(args.x), elements<const float>(args.inv_rms), elements<const float>(args.weight),
             rows, cols);
    });
    launch({.grid = dim3(column_blocks, static_cast<unsigned>(chunks)), .block = kThreads, .stream = stream_of(ctx)},
           rms_norm_grad_weight_kernel<Element>, elements<float>(partial), elements<const Y>(args.grad_y),
           elements<const float>(args.x), elements<const float>(args.inv_rms), rows, cols);
  });
  add_partials(ctx, args.grad_weight, partial);
}

}  // namespace mhmoe::cuda
