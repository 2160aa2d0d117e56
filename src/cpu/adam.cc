#include "ops/adam.h"

#include <cmath>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

constexpr int64_t kUpdateGrain = int64_t{1} << 14;

// The scalars of one update, as the inner loop wants them.
struct AdamFactors {
  AdamFactors(const ops::AdamUpdate& args, const float* scalars)
      : learning_rate(scalars[ops::kLearningRate]),
        correction1(1.0f / scalars[ops::kBiasCorrection1]),
        correction2(1.0f / scalars[ops::kBiasCorrection2]),
        clip_scale(scalars[ops::kClipScale]),
        coupled_decay(args.decoupled ? 0.0f : args.weight_decay),
        decoupled_decay(args.decoupled ? args.weight_decay : 0.0f) {}
  float learning_rate, correction1, correction2, clip_scale, coupled_decay, decoupled_decay;
};

void update_range(const ops::AdamUpdate& args, const AdamFactors& f, int64_t begin, int64_t end) {
  auto *master = args.master.as<float>(), *moment1 = args.moment1.as<float>(), *moment2 = args.moment2.as<float>();
  const auto* grad = args.grad.as<const float>();
  const float beta1 = args.beta1, beta2 = args.beta2, eps = args.eps;
#pragma omp simd
  for (int64_t i = begin; i < end; ++i) {
    const float g = f.clip_scale * grad[i] + f.coupled_decay * master[i];
    const float m = beta1 * moment1[i] + (1.0f - beta1) * g;
    const float v = beta2 * moment2[i] + (1.0f - beta2) * g * g;
    const float direction = m * f.correction1 / (std::sqrt(v * f.correction2) + eps);
    moment1[i] = m;
    moment2[i] = v;
    master[i] -= f.learning_rate * (direction + f.decoupled_decay * master[i]);
  }
  if (!args.copy.empty()) store_row(args.copy.as<bfloat16>() + begin, master + begin, end - begin);
}

}  // namespace

void clip_scale(Context& /*ctx*/, const ops::ClipScale& args) {
  auto* scalars = args.scalars.as<float>();
  const float sum_squares = *args.sum_squares.as<const float>(), loss = *args.loss.as<const float>();
  const float norm = std::sqrt(sum_squares);
  scalars[ops::kClipScale] = args.clip_norm > 0 && norm > args.clip_norm ? args.clip_norm / norm : 1.0f;
  const bool finite = std::isfinite(sum_squares) && std::isfinite(loss);
  scalars[ops::kRefuse] = finite && loss <= scalars[ops::kLossLimit] && norm <= scalars[ops::kNormLimit] ? 0.0f : 1.0f;
}

void adam_update(Context& /*ctx*/, const ops::AdamUpdate& args) {
  const auto* scalars = args.scalars.as<const float>();
  if (scalars[ops::kRefuse] != 0) return;
  const AdamFactors factors(args, scalars);
  parallel_for(args.master.count(), kUpdateGrain,
               [&](int64_t begin, int64_t end, int /*thread*/) { update_range(args, factors, begin, end); });
}

}  // namespace mhmoe::cpu
