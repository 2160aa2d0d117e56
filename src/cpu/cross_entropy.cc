#include "ops/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

constexpr int64_t kSumBlock = 1024;  // float sums within a block, double across blocks

struct RowStatistics {
  float max;
  double sum;  // of exp(logit - max)
};

RowStatistics row_statistics(const float* logits, int64_t count) {
  float max = logits[0];
#pragma omp simd reduction(max : max)
  for (int64_t i = 0; i < count; ++i) max = logits[i] > max ? logits[i] : max;
  double sum = 0;
  for (int64_t begin = 0; begin < count; begin += kSumBlock) {
    const int64_t end = std::min(count, begin + kSumBlock);
    float block = 0;
#pragma omp simd reduction(+ : block)
    for (int64_t i = begin; i < end; ++i) block += fast_exp(logits[i] - max);
    sum += block;
  }
  return {max, sum};
}

template <class T>
void grad_row(T* grad, const float* logits, int64_t count, const RowStatistics& row, int32_t target, float scale) {
  const auto factor = static_cast<float>(scale / row.sum);
  // Before the loop: grad may be the logits.
  const float at_target = fast_exp(logits[target] - row.max) * factor - scale;
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) store_value(grad[i], fast_exp(logits[i] - row.max) * factor);
  store_value(grad[target], at_target);
}

}  // namespace

void cross_entropy(Context& /*ctx*/, const ops::CrossEntropy& args) {
  const int64_t rows = args.logits.rows(), vocabulary = args.logits.cols();
  const bool with_grad = !args.grad_logits.empty();
  const auto* logits = args.logits.as<const float>();
  const auto* targets = args.targets.as<const int32_t>();
  auto* loss = args.loss.as<float>();
  const float scale = scale_or_one(args.scale);
  dispatch_float(with_grad ? args.grad_logits.dtype : DType::kF32, [&](auto zero) {
    using T = decltype(zero);
    auto* grad = with_grad ? args.grad_logits.as<T>() : nullptr;
    parallel_for(rows, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
      for (int64_t n = begin; n < end; ++n) {
        const float* row = logits + n * vocabulary;
        if (targets[n] < 0) {
          loss[n] = 0;
          if (with_grad) std::fill_n(grad + n * vocabulary, vocabulary, T{});
          continue;
        }
        const RowStatistics statistics = row_statistics(row, vocabulary);
        loss[n] = static_cast<float>(std::log(statistics.sum) + (double{statistics.max} - row[targets[n]]));
        if (with_grad) grad_row(grad + n * vocabulary, row, vocabulary, statistics, targets[n], scale);
      }
    });
  });
}

}  // namespace mhmoe::cpu
