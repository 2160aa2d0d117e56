#include "ops/adam.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;

struct AdamConstants {
  float beta1, beta2, eps, weight_decay;
  bool decoupled;
};
struct AdamPointers {
  float *master, *moment1, *moment2;
  __nv_bfloat16* copy;  // may be null
  const float* grad;
};
struct AdamScalars {
  float learning_rate, bias_correction1, bias_correction2, clip_scale;
};

__global__ void clip_scale_kernel(float* scalars, const float* sum_squares, const float* loss, float clip_norm) {
  const float norm = sqrtf(sum_squares[0]);
  scalars[ops::kClipScale] = clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1.0f;
  const bool finite = isfinite(sum_squares[0]) && isfinite(loss[0]);
  scalars[ops::kRefuse] =
      finite && loss[0] <= scalars[ops::kLossLimit] && norm <= scalars[ops::kNormLimit] ? 0.0f : 1.0f;
}

template <int kWidth>
__device__ void update_elements(int64_t i, const AdamPointers& at, const AdamScalars& step,
                                const AdamConstants& constants) {
  auto master = load<kWidth>(at.master + i);
  auto moment1 = load<kWidth>(at.moment1 + i);
  auto moment2 = load<kWidth>(at.moment2 + i);
  const auto grads = load<kWidth>(at.grad + i);
  const float coupled_decay = constants.decoupled ? 0.0f : constants.weight_decay;
  const float decoupled_decay = constants.decoupled ? constants.weight_decay : 0.0f;
  for (int j = 0; j < kWidth; ++j) {
    const float grad = step.clip_scale * grads[j] + coupled_decay * master[j];
    moment1[j] = constants.beta1 * moment1[j] + (1 - constants.beta1) * grad;
    moment2[j] = constants.beta2 * moment2[j] + (1 - constants.beta2) * grad * grad;
    const float direction =
        moment1[j] / step.bias_correction1 / (sqrtf(moment2[j] / step.bias_correction2) + constants.eps);
    master[j] -= step.learning_rate * (direction + decoupled_decay * master[j]);
  }
  store<kWidth>(at.master + i, master);
  store<kWidth>(at.moment1 + i, moment1);
  store<kWidth>(at.moment2 + i, moment2);
  if (at.copy != nullptr) store<kWidth>(at.copy + i, master);
}

// One launch a segment of the flat parameter vector: master, moments and the bf16 copy are each touched once.
// kWidth elements a thread; the last thread may have fewer.
template <int kWidth>
__global__ void adam_update_kernel(AdamPointers at, const float* scalars, int64_t count, AdamConstants constants) {
  if (scalars[ops::kRefuse] != 0) return;
  const AdamScalars step = {scalars[ops::kLearningRate], scalars[ops::kBiasCorrection1], scalars[ops::kBiasCorrection2],
                            scalars[ops::kClipScale]};
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (begin + kWidth <= count) {
    update_elements<kWidth>(begin, at, step, constants);
  } else {
    for (int64_t i = begin; i < count; ++i) update_elements<1>(i, at, step, constants);
  }
}

}  // namespace

void clip_scale(Context& ctx, const ops::ClipScale& args) {
  launch({.grid = 1, .block = 1, .stream = stream_of(ctx)}, clip_scale_kernel, elements<float>(args.scalars),
         elements<const float>(args.sum_squares), elements<const float>(args.loss), args.clip_norm);
}

void adam_update(Context& ctx, const ops::AdamUpdate& args) {
  const int64_t count = args.master.count();
  const AdamPointers at = {elements<float>(args.master), elements<float>(args.moment1), elements<float>(args.moment2),
                           elements<bfloat16>(args.copy), elements<const float>(args.grad)};
  const AdamConstants constants = {args.beta1, args.beta2, args.eps, args.weight_decay, args.decoupled};
  dispatch_aligned<kPack>({args.master, args.moment1, args.moment2, args.copy, args.grad}, [&](auto width) {
    launch({.grid = block_count(count, kThreads * width()), .block = kThreads, .stream = stream_of(ctx)},
           adam_update_kernel<width()>, at, elements<const float>(args.scalars), count, constants);
  });
}

const void* any_kernel() {
  return reinterpret_cast<const void*>(clip_scale_kernel);
}

}  // namespace mhmoe::cuda
