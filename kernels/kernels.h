// The CUDA backend's kernels: one host function an op, contracts in ops/*.h. Arguments are checked before they get
// here; work is queued on ctx.compute_stream(). Scratch comes from ctx.step(): NAME_scratch allocates it, for the
// kernel and for sizing passes, which run nothing else.
#pragma once

#include "ops/kernel_table.h"

namespace mhmoe::cuda {

void rms_norm_forward(Context& ctx, const ops::RmsNormForward& args);
void rms_norm_backward(Context& ctx, const ops::RmsNormBackward& args);
void rms_norm_backward_scratch(Context& ctx, const ops::RmsNormBackward& args);
void matmul(Context& ctx, const ops::Matmul& args);
void matmul_scratch(Context& ctx, const ops::Matmul& args);
void bias_backward(Context& ctx, const ops::BiasBackward& args);
void bias_backward_scratch(Context& ctx, const ops::BiasBackward& args);
void rotary(Context& ctx, const ops::Rotary& args);
void attention_forward(Context& ctx, const ops::AttentionForward& args);
void attention_backward(Context& ctx, const ops::AttentionBackward& args);
void attention_backward_scratch(Context& ctx, const ops::AttentionBackward& args);
void attention_cached(Context& ctx, const ops::AttentionCached& args);
void router_forward(Context& ctx, const ops::RouterForward& args);
void router_forward_scratch(Context& ctx, const ops::RouterForward& args);
void router_backward(Context& ctx, const ops::RouterBackward& args);
void activation_forward(Context& ctx, const ops::ActivationForward& args);
void activation_backward(Context& ctx, const ops::ActivationBackward& args);
void embedding_forward(Context& ctx, const ops::EmbeddingForward& args);
void embedding_backward(Context& ctx, const ops::EmbeddingBackward& args);
void embedding_backward_scratch(Context& ctx, const ops::EmbeddingBackward& args);
void cross_entropy(Context& ctx, const ops::CrossEntropy& args);
void add(Context& ctx, const ops::Add& args);
void reduce(Context& ctx, const ops::Reduce& args);
void reduce_scratch(Context& ctx, const ops::Reduce& args);
void assign_slots(Context& ctx, const ops::AssignSlots& args);
void assign_slots_scratch(Context& ctx, const ops::AssignSlots& args);
void gather_rows(Context& ctx, const ops::GatherRows& args);
void combine_rows(Context& ctx, const ops::CombineRows& args);
void grouped_matmul(Context& ctx, const ops::GroupedMatmul& args);
void grouped_matmul_scratch(Context& ctx, const ops::GroupedMatmul& args);
void grouped_weight_grad(Context& ctx, const ops::GroupedWeightGrad& args);
void grouped_weight_grad_scratch(Context& ctx, const ops::GroupedWeightGrad& args);
void grouped_bias_backward(Context& ctx, const ops::GroupedBiasBackward& args);
void cast(Context& ctx, const ops::Cast& args);
void clip_scale(Context& ctx, const ops::ClipScale& args);
void adam_update(Context& ctx, const ops::AdamUpdate& args);

// One of them, as the runtime knows it: a device that it was built for can run them all.
const void* any_kernel();

}  // namespace mhmoe::cuda
