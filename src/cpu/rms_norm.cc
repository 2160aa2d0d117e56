#include <cmath>
#include <vector>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

template <class T>
void forward_rows(const ops::RmsNormForward& args, int64_t begin, int64_t end) {
  const int64_t cols = args.x.cols();
  const float* weight = args.weight.as<float>();
  float* inv_rms = args.inv_rms.as<float>();
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.x.as<float>() + r * cols;
    T* y = args.y.as<T>() + r * cols;
    const float squares = chained_sum(cols, [x](int64_t c) { return x[c] * x[c]; });
    const float scale = 1 / std::sqrt(squares / static_cast<float>(cols) + args.eps);
    inv_rms[r] = scale;
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) store_value(y[c], x[c] * scale * weight[c]);
  }
}

// grad_weight: [d], this chunk's own sum.
template <class T>
void backward_rows(const ops::RmsNormBackward& args, float* grad_weight, int64_t begin, int64_t end) {
  const int64_t cols = args.x.cols();
  const float* weight = args.weight.as<float>();
  for (int64_t r = begin; r < end; ++r) {
    const float* x = args.x.as<float>() + r * cols;
    const T* grad_y = args.grad_y.as<T>() + r * cols;
    float* grad_x = args.grad_x.as<float>() + r * cols;
    const float scale = args.inv_rms.as<float>()[r];
    const float dot = chained_sum(cols, [=](int64_t c) { return static_cast<float>(grad_y[c]) * weight[c] * x[c]; });
    const float pull = dot * scale * scale / static_cast<float>(cols);
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) {
      const float gradient = static_cast<float>(grad_y[c]);
      grad_x[c] += scale * (gradient * weight[c] - x[c] * pull);
      grad_weight[c] += gradient * x[c] * scale;
    }
  }
}

}  // namespace

void rms_norm_forward(Context& /*ctx*/, const ops::RmsNormForward& args) {
  dispatch_float(args.y.dtype, [&](auto zero) {
    parallel_for(args.x.rows(), row_grain(args.x.cols()),
                 [&](int64_t begin, int64_t end, int /*thread*/) { forward_rows<decltype(zero)>(args, begin, end); });
  });
}

void rms_norm_backward(Context& /*ctx*/, const ops::RmsNormBackward& args) {
  const int64_t cols = args.x.cols();
  const RowChunks chunks(args.x.rows());
  thread_local std::vector<float> scratch;  // [chunks, d]
  scratch.assign(static_cast<size_t>(chunks.count * cols), 0.0f);
  float* partial = scratch.data();
  dispatch_float(args.grad_y.dtype, [&](auto zero) {
    parallel_for(chunks.count, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
      for (int64_t i = begin; i < end; ++i) {
        backward_rows<decltype(zero)>(args, partial + i * cols, chunks.begin(i), chunks.end(i));
      }
    });
  });
  float* grad_weight = args.grad_weight.as<float>();
  for (int64_t i = 0; i < chunks.count; ++i) {
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) grad_weight[c] += partial[i * cols + c];
  }
}

}  // namespace mhmoe::cpu
