#include "ops/cross_entropy.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kPack = 8;

// The largest of some logits, and the sum of exp(logit - max); of none: -infinity and 0.
struct RowStatistics {
  float max, sum;
};

// exp(value - max), where max is the largest of more; 0 where there are none but -infinity.
__device__ float scaled_exp(float value, float max) {
  return max == -INFINITY ? 0.0f : expf(value - max);
}

// One pass over the row: the sum is scaled down whenever a larger logit turns up.
template <int kWidth>
__device__ RowStatistics thread_statistics(const float* logits, int64_t count) {
  RowStatistics row = {-INFINITY, 0};
  for (int64_t i = int64_t{threadIdx.x} * kWidth; i < count; i += kThreads * kWidth) {
    const auto values = load<kWidth>(logits + i);
    float max = row.max;
    for (int j = 0; j < kWidth; ++j) max = fmaxf(max, values[j]);
    float sum = 0;
    for (int j = 0; j < kWidth; ++j) sum += scaled_exp(values[j], max);
    row = {max, row.sum * scaled_exp(row.max, max) + sum};
  }
  return row;
}

template <int kWidth, class T>
__device__ void store_gradient(T* grad, const float* logits, int64_t count, const RowStatistics& row, int32_t target,
                               float scale) {
  const float factor = scale / row.sum;
  for (int64_t i = int64_t{threadIdx.x} * kWidth; i < count; i += kThreads * kWidth) {
    auto values = load<kWidth>(logits + i);
    for (int j = 0; j < kWidth; ++j) {
      values[j] = expf(values[j] - row.max) * factor - (i + j == target ? scale : 0.0f);
    }
    store<kWidth>(grad + i, values);
  }
}

// One block a row. grad may be null, or the logits themselves: each thread writes the elements that it alone has read
// since the last barrier.
template <int kWidth, class T>
__global__ void cross_entropy_kernel(float* loss, T* grad, const float* logits, const int32_t* targets,
                                     int64_t vocabulary, const float* scale) {
  logits += blockIdx.x * vocabulary;
  if (grad != nullptr) grad += blockIdx.x * vocabulary;
  const int32_t target = targets[blockIdx.x];
  if (target < 0) {
    if (threadIdx.x == 0) loss[blockIdx.x] = 0;
    if (grad == nullptr) return;
    for (int64_t i = int64_t{threadIdx.x} * kWidth; i < vocabulary; i += kThreads * kWidth) {
      store<kWidth>(grad + i, Floats<kWidth>{});
    }
    return;
  }
  const float at_target = threadIdx.x == 0 ? logits[target] : 0.0f;
  const RowStatistics own = thread_statistics<kWidth>(logits, vocabulary);
  const float max = block_max<kThreads>(own.max);
  const RowStatistics row = {max, block_sum<kThreads>(own.sum * scaled_exp(own.max, max))};
  if (threadIdx.x == 0) loss[blockIdx.x] = logf(row.sum) + (row.max - at_target);
  if (grad != nullptr) store_gradient<kWidth>(grad, logits, vocabulary, row, target, scale_or_one(scale));
}

}  // namespace

void cross_entropy(Context& ctx, const ops::CrossEntropy& args) {
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.cols();
  dispatch_float(args.grad_logits.empty() ? DType::kF32 : args.grad_logits.dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatch_width<kPack>(vocabulary, {args.logits, args.grad_logits}, [&](auto width) {
      launch({.grid = block_count(rows, 1), .block = kThreads, .stream = stream_of(ctx)},
             cross_entropy_kernel<width(), typename DeviceElement<T>::Type>, elements<float>(args.loss),
             elements<T>(args.grad_logits), elements<const float>(args.logits), elements<const int32_t>(args.targets),
             vocabulary, elements<const float>(args.scale));
    });
  });
}

}  // namespace mhmoe::cuda
