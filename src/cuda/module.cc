// What libmhmoe_cuda.so shows to the program: one entry point; and the list of its kernels.
#include "cuda/context.h"
#include "cuda/device.h"
#include "cuda/identity.h"
#include "cuda/kernel_table.h"
#include "cuda/nccl_communicator.h"
#include "device/backend.h"
#include "interface_hash.h"
#include "kernels/kernels.h"

namespace mhmoe::cuda {
namespace {

constexpr ops::KernelTable kKernels = {
    .embedding_forward = embedding_forward,
    .embedding_backward = {embedding_backward, embedding_backward_scratch},
    .rms_norm_forward = rms_norm_forward,
    .rms_norm_backward = {rms_norm_backward, rms_norm_backward_scratch},
    .matmul = {matmul, matmul_scratch},
    .bias_backward = {bias_backward, bias_backward_scratch},
    .rotary = rotary,
    .attention_forward = attention_forward,
    .attention_backward = {attention_backward, attention_backward_scratch},
    .attention_cached = attention_cached,
    .activation_forward = activation_forward,
    .activation_backward = activation_backward,
    .router_forward = {router_forward, router_forward_scratch},
    .router_backward = router_backward,
    .assign_slots = {assign_slots, assign_slots_scratch},
    .gather_rows = gather_rows,
    .combine_rows = combine_rows,
    .grouped_matmul = {grouped_matmul, grouped_matmul_scratch},
    .grouped_weight_grad = {grouped_weight_grad, grouped_weight_grad_scratch},
    .grouped_bias_backward = grouped_bias_backward,
    .cross_entropy = cross_entropy,
    .cast = cast,
    .add = add,
    .reduce = {reduce, reduce_scratch},
    .clip_scale = clip_scale,
    .adam_update = adam_update,
};

}  // namespace

const ops::KernelTable& kernel_table() {
  return kKernels;
}

}  // namespace mhmoe::cuda

extern "C" {
extern MHMOE_API const char mhmoe_backend_interface[];
const char mhmoe_backend_interface[] = MHMOE_INTERFACE_HASH;
}

extern "C" MHMOE_API const mhmoe::Backend* mhmoe_backend_entry() {
  static const mhmoe::Backend backend = {
      .name = mhmoe::cuda::backend_name(),
      .kind = mhmoe::DeviceKind::kCuda,
      .kernels = mhmoe::cuda::kernel_table(),
      .create_context = mhmoe::cuda::create_context,
      .create_communicator = mhmoe::cuda::create_communicator,
      .unusable_reason = mhmoe::cuda::unusable_reason,
      .prefers_bf16 = mhmoe::cuda::prefers_bf16,
      .nccl_version = mhmoe::cuda::nccl_version,
  };
  return &backend;
}
