#include "ops/attention.h"

#include <utility>

#include "ops/check.h"

namespace mhmoe::ops {
namespace {

constexpr int64_t kLongestSequence = int64_t{1} << 30;  // positions are 32 bits wide in kernels

void check_shape(const char* op, const AttentionShape& shape) {
  MHMOE_CHECK(shape.sequence_length <= kLongestSequence, "[{}] sequence_length is {}, expected at most {}", op,
              shape.sequence_length, kLongestSequence);
  MHMOE_CHECK(shape.batch >= 0 && shape.sequence_length > 0 && shape.heads > 0 && shape.head_size > 0,
              "[{}] shape is batch {}, sequence_length {}, heads {}, head_size {}, expected each to be at least 1", op,
              shape.batch, shape.sequence_length, shape.heads, shape.head_size);
}

void check_lengths(const Context& ctx, const char* op, const AttentionShape& shape, const Tensor& prefix_lengths,
                   const Tensor& key_lengths) {
  MHMOE_CHECK((shape.mask == AttentionMask::kPrefix) != prefix_lengths.empty(),
              "[{}] prefix_lengths is {}, expected with the prefix mask and with no other", op,
              prefix_lengths.empty() ? "absent" : "given");
  for (const auto& [name, lengths] : {std::pair{"prefix_lengths", prefix_lengths}, {"key_lengths", key_lengths}}) {
    if (!lengths.empty()) Argument(ctx, op, name, lengths).shape({shape.batch}).dtype(DType::kI32);
  }
}

}  // namespace

void attention_forward(Context& ctx, const AttentionForward& args) {
  constexpr auto kOp = "attention_forward";
  const auto& [batch, length, heads, head_size, mask] = args.shape;
  check_shape(kOp, args.shape);
  Argument(ctx, kOp, "qkv", args.qkv).matrix(batch * length, 3 * heads * head_size).floating();
  Argument(ctx, kOp, "out", args.out).matrix(batch * length, heads * head_size).same_dtype(args.qkv);
  Argument(ctx, kOp, "log_sum_exp", args.log_sum_exp).shape({batch, heads, length}).dtype(DType::kF32);
  check_lengths(ctx, kOp, args.shape, args.prefix_lengths, args.key_lengths);
  run(ctx, &KernelTable::attention_forward, args);
}

void attention_backward(Context& ctx, const AttentionBackward& args) {
  constexpr auto kOp = "attention_backward";
  const auto& [batch, length, heads, head_size, mask] = args.shape;
  check_shape(kOp, args.shape);
  Argument(ctx, kOp, "qkv", args.qkv).matrix(batch * length, 3 * heads * head_size).floating();
  Argument(ctx, kOp, "grad_qkv", args.grad_qkv).matrix(batch * length, 3 * heads * head_size).same_dtype(args.qkv);
  Argument(ctx, kOp, "grad_out", args.grad_out).matrix(batch * length, heads * head_size).same_dtype(args.qkv);
  Argument(ctx, kOp, "out", args.out).matrix(batch * length, heads * head_size).same_dtype(args.qkv);
  Argument(ctx, kOp, "log_sum_exp", args.log_sum_exp).shape({batch, heads, length}).dtype(DType::kF32);
  check_lengths(ctx, kOp, args.shape, args.prefix_lengths, args.key_lengths);
  run(ctx, &KernelTable::attention_backward, args);
}

void attention_cached(Context& ctx, const AttentionCached& args) {
  constexpr auto kOp = "attention_cached";
  const auto& [batch, length, heads, head_size, mask] = args.shape;
  check_shape(kOp, args.shape);
  MHMOE_CHECK(mask == AttentionMask::kCausal, "[{}] the mask is not causal", kOp);
  Argument(ctx, kOp, "qkv", args.qkv).matrix(batch * length, 3 * heads * head_size).floating();
  Argument(ctx, kOp, "out", args.out).matrix(batch * length, heads * head_size).same_dtype(args.qkv);
  const int64_t capacity = args.keys.dims[2];
  Argument(ctx, kOp, "keys", args.keys).shape({batch, heads, capacity, head_size}).same_dtype(args.qkv);
  Argument(ctx, kOp, "values", args.values).shape({batch, heads, capacity, head_size}).same_dtype(args.qkv);
  MHMOE_CHECK(args.first_position >= 0 && args.first_position + length <= capacity,
              "[{}] positions {} to {}, expected within the capacity of {}", kOp, args.first_position,
              args.first_position + length - 1, capacity);
  run(ctx, &KernelTable::attention_cached, args);
}

}  // namespace mhmoe::ops
