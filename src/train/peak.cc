#include "train/peak.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/rank.h"
#include "ops/matmul.h"

namespace mhmoe::train {

double measure_matmul_peak(const Backend& backend, DType compute) {
  using Clock = std::chrono::steady_clock;
  // A GPU needs a thousand times the work for the launch not to count; the emulated one computes on the CPU.
  const int64_t size = std::string_view(backend.name) == "cuda" ? 8192 : 768;
  constexpr int kProducts = 10;
  constexpr double kSeconds = 0.2;
  const double flops = 2 * std::pow(static_cast<double>(size), 3);

  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const Tensor out = ctx->step().allocate("product", DType::kF32, {size, size});
  const Tensor a = ctx->step().allocate("left", compute, {size, size});
  const Tensor b = ctx->step().allocate("right", compute, {size, size});
  ctx->fill_zero(a);
  ctx->fill_zero(b);
  double best = 0;
  const auto begin = Clock::now();
  for (int i = 0; i < kProducts; ++i) {
    const auto start = Clock::now();
    ops::matmul(*ctx, {.out = out, .a = a, .b = b, .transpose_b = true});
    ctx->synchronize();
    const std::chrono::duration<double> seconds = Clock::now() - start;
    if (i > 0) best = std::max(best, flops / seconds.count());  // the first one sets things up
    if (i > 0 && std::chrono::duration<double>(Clock::now() - begin).count() > kSeconds) break;
  }
  return best;
}

}  // namespace mhmoe::train
