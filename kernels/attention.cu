#include "ops/attention.h"

#include <cstdlib>
#include <string_view>

#include "core/error.h"
#include "kernels/attention.cuh"
#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowLanes = 4;  // lanes a row of one head: 4 x 16 bytes are the 32 elements of the smallest head
constexpr int kRowsPerBlock = kThreads / kRowLanes;
constexpr int kPack = 8;

// The one place that chooses: kernels on tensor cores wherever they can, unless MHMOE_ATTENTION is "plain" (a judge for
// when results are in doubt) and not "auto".
bool on_tensor_cores(const ops::AttentionShape& shape, std::initializer_list<Tensor> tensors) {
  const char* const variable = std::getenv("MHMOE_ATTENTION");
  const std::string_view wish = variable == nullptr ? "auto" : variable;
  if (wish != "auto" && wish != "plain") fail(ExitCode::kUsage, "MHMOE_ATTENTION={}: allowed: auto, plain", wish);
  if (wish == "plain") return false;
  const bool supported = shape.head_size % 32 == 0 && shape.head_size <= 128;
  return supported && tensors.begin()->dtype == DType::kBF16 && aligned_for(kPack, tensors);
}

// delta[b, h, t] = grad_out . out of the head's row
template <int kWidth, class T>
__global__ void attention_delta_kernel(float* delta, const T* grad_out, const T* out, AttentionSizes sizes) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kRowLanes;
  const int64_t token = row / sizes.heads;
  const bool valid = token < sizes.batch * sizes.length;
  float sum = 0;
  if (valid) {
    const int64_t begin = row * sizes.head_size;
    for (int64_t c = static_cast<int64_t>(threadIdx.x) % kRowLanes * kWidth; c < sizes.head_size;
         c += kRowLanes * kWidth) {
      const auto a = load<kWidth>(grad_out + begin + c), b = load<kWidth>(out + begin + c);
      for (int i = 0; i < kWidth; ++i) sum += a[i] * b[i];
    }
  }
  for (int mask = kRowLanes / 2; mask > 0; mask /= 2) sum += __shfl_xor_sync(kFullWarp, sum, mask);
  if (!valid || threadIdx.x % kRowLanes != 0) return;
  const int64_t head = token / sizes.length * sizes.heads + row % sizes.heads;
  delta[head * sizes.length + token % sizes.length] = sum;
}

// f32 [batch, heads, length]
Tensor allocate_delta(Context& ctx, const ops::AttentionShape& shape) {
  return ctx.step().allocate("attention_delta", DType::kF32, {shape.batch, shape.heads, shape.sequence_length});
}

void compute_delta(Context& ctx, const Tensor& delta, const ops::AttentionBackward& args) {
  dispatch_float(args.out.dtype, [&](auto zero) {
    using T = decltype(zero);
    dispatch_width<kPack>(args.shape.head_size, {args.grad_out, args.out}, [&](auto width) {
      launch({.grid = block_count(delta.count(), kRowsPerBlock), .block = kThreads, .stream = stream_of(ctx)},
             attention_delta_kernel<width(), typename DeviceElement<T>::Type>, elements<float>(delta),
             elements<const T>(args.grad_out), elements<const T>(args.out), attention_sizes(args.shape));
    });
  });
}

}  // namespace

void attention_forward(Context& ctx, const ops::AttentionForward& args) {
  const bool fast = on_tensor_cores(args.shape, {args.qkv, args.out});
  (fast ? flash_attention_forward : plain_attention_forward)(ctx, args);
}

void attention_backward_scratch(Context& ctx, const ops::AttentionBackward& args) {
  allocate_delta(ctx, args.shape);
}

void attention_backward(Context& ctx, const ops::AttentionBackward& args) {
  const ArenaScope scope(ctx.step());
  const Tensor delta = allocate_delta(ctx, args.shape);
  compute_delta(ctx, delta, args);
  const bool fast = on_tensor_cores(args.shape, {args.qkv, args.grad_qkv, args.grad_out});
  (fast ? flash_attention_backward : plain_attention_backward)(ctx, args, delta);
}

}  // namespace mhmoe::cuda
