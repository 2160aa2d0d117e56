#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {

void embedding_forward(Context& /*ctx*/, const ops::EmbeddingForward& args) {
  const int64_t cols = args.table.cols();
  const int32_t* tokens = args.tokens.as<int32_t>();
  float* out = args.out.as<float>();
  dispatch_float(args.table.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* table = args.table.as<T>();
    parallel_for(args.out.rows(), row_grain(cols), [&](int64_t begin, int64_t end, int /*thread*/) {
      for (int64_t n = begin; n < end; ++n) load_row(out + n * cols, table + tokens[n] * cols, cols);
    });
  });
}

void embedding_backward(Context& /*ctx*/, const ops::EmbeddingBackward& args) {
  const int64_t rows = args.grad_out.rows(), cols = args.grad_out.cols();
  const int32_t* tokens = args.tokens.as<int32_t>();
  const float* grad_out = args.grad_out.as<float>();
  float* grad_table = args.grad_table.as<float>();
  // Threads share out the columns: each adds the rows of a token in order, and none writes what another does.
  constexpr int64_t kLine = 16;
  const int64_t lines = (cols + kLine - 1) / kLine;
  const int64_t grain = std::max<int64_t>(1, 1024 / std::max<int64_t>(rows, 1));
  parallel_for(lines, grain, [&](int64_t begin, int64_t end, int /*thread*/) {
    const int64_t first = begin * kLine, last = std::min(end * kLine, cols);
    for (int64_t n = 0; n < rows; ++n) {
      const float* from = grad_out + n * cols;
      float* to = grad_table + tokens[n] * cols;
#pragma omp simd
      for (int64_t c = first; c < last; ++c) to[c] += from[c];
    }
  });
}

}  // namespace mhmoe::cpu
