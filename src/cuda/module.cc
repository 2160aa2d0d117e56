// What libmhmoe_cuda.so shows to the program: one entry point; and the list of its kernels.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "cuda/context.h"
#include "cuda/device.h"
#include "cuda/identity.h"
#include "cuda/kernel_table.h"
#include "device/backend.h"
#include "device/self_communicator.h"
#include "kernels/kernels.h"

namespace mhmoe::cuda {
namespace {

template <size_t kSize>
struct Name {
  constexpr Name(const char (&text)[kSize]) { std::copy_n(text, kSize, value); }  // NOLINT(google-explicit-constructor)
  char value[kSize];
};

template <class Args, Name kName>
void throw_not_built(Context& /*ctx*/, const Args& /*args*/) {
  fail(ExitCode::kDevice, "[{}] has no CUDA kernel yet; use --device cpu", kName.value);
}

// The table, and the names of its ops that have no kernel.
struct Kernels {
  template <class Args, Name kName>
  ops::Required<Args> not_built() {
    missing.emplace_back(kName.value);
    return throw_not_built<Args, kName>;
  }

  std::vector<std::string> missing;  // before the table, which fills it
  ops::KernelTable table = {
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
};

const Kernels& kernels() {
  static const Kernels kernels;
  return kernels;
}

const char* incomplete_reason() {
  static const std::string reason = fmt::format("this version's CUDA backend lacks kernels for {} ops: {}",
                                                kernels().missing.size(), fmt::join(kernels().missing, ", "));
  return kernels().missing.empty() ? nullptr : reason.c_str();
}

}  // namespace

const ops::KernelTable& kernel_table() {
  return kernels().table;
}

}  // namespace mhmoe::cuda

extern "C" MHMOE_API const mhmoe::Backend* mhmoe_backend_entry() {
  static const mhmoe::Backend backend = {
      .name = mhmoe::cuda::backend_name(),
      .kind = mhmoe::DeviceKind::kCuda,
      .kernels = mhmoe::cuda::kernel_table(),
      .create_context = mhmoe::cuda::create_context,
      .create_communicator = mhmoe::make_self_communicator,
      .unusable_reason = mhmoe::cuda::unusable_reason,
      .incomplete_reason = mhmoe::cuda::incomplete_reason,
      .prefers_bf16 = mhmoe::cuda::prefers_bf16,
  };
  return &backend;
}
