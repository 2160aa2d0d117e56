#include "cpu/backend.h"

#include "cpu/context.h"
#include "cpu/kernels.h"
#include "cpu/product.h"
#include "cpu/requirements.h"

namespace mhmoe::cpu {
namespace {

constexpr ops::KernelTable kKernels = {
    .embedding_forward = embedding_forward,
    .embedding_backward = embedding_backward,
    .rms_norm_forward = rms_norm_forward,
    .rms_norm_backward = rms_norm_backward,
    .matmul = matmul,
    .bias_backward = bias_backward,
    .rotary = rotary,
    .attention_forward = attention_forward,
    .attention_backward = attention_backward,
    .attention_cached = attention_cached,
    .activation_forward = activation_forward,
    .activation_backward = activation_backward,
    .router_forward = router_forward,
    .router_backward = router_backward,
    .assign_slots = assign_slots,
    .gather_rows = gather_rows,
    .combine_rows = combine_rows,
    .grouped_matmul = grouped_matmul,
    .grouped_weight_grad = grouped_weight_grad,
    .grouped_bias_backward = grouped_bias_backward,
    .cross_entropy = cross_entropy,
    .cast = cast,
    .add = add,
    .reduce = reduce,
    .clip_scale = clip_scale,
    .adam_update = adam_update,
};

}  // namespace

const Backend& backend() {
  static constexpr Backend kBackend = {
      .name = "cpu",
      .kind = DeviceKind::kCpu,
      .kernels = kKernels,
      .create_context = [](int /*ordinal*/) { return create_context(kKernels); },
      .create_communicator = nullptr,
      .unusable_reason = unusable_reason,
      .prefers_bf16 = [](int /*ordinal*/) { return native_bf16(); },
      .nccl_version = nullptr,
  };
  return kBackend;
}

}  // namespace mhmoe::cpu
