// Every op (contracts_routing_test.cc has those of routing and of experts) refuses every wrong argument, and says which
// one of which op.
#include "ops/contracts.h"

#include "ops/kernel_table.h"

namespace mhmoe {
namespace {

using namespace ops;  // NOLINT(google-build-using-namespace)
using test::Contracts;
using test::Field;
using test::kAnyRows;
using test::kDefinesShape;
using test::kOptional;

TEST_F(Contracts, Embedding) {
  using F = EmbeddingForward;
  expect_checked<F>(
      "embedding_forward", embedding_forward, {f32({6, 4}), bf16({9, 4}), i32({2, 3})},
      {{"out", &F::out, kDefinesShape}, {"table", &F::table, kDefinesShape | kAnyRows}, {"tokens", &F::tokens}});
  using B = EmbeddingBackward;
  expect_checked<B>("embedding_backward", embedding_backward, {f32({9, 4}), f32({6, 4}), i32({6})},
                    {{"grad_table", &B::grad_table, kDefinesShape | kAnyRows},
                     {"grad_out", &B::grad_out, kDefinesShape},
                     {"tokens", &B::tokens}});
}

TEST_F(Contracts, RmsNorm) {
  using F = RmsNormForward;
  expect_checked<F>("rms_norm_forward", rms_norm_forward, {bf16({3, 4}), f32({3}), f32({3, 4}), f32({4}), 0},
                    {{"y", &F::y}, {"inv_rms", &F::inv_rms}, {"x", &F::x, kDefinesShape}, {"weight", &F::weight}});
  expect_refused<F>(rms_norm_forward, "[rms_norm_forward] x has no columns",
                    {bf16({3, 0}), f32({3}), f32({3, 0}), f32({0}), 0});
  using B = RmsNormBackward;
  expect_checked<B>("rms_norm_backward", rms_norm_backward,
                    {f32({3, 4}), f32({4}), bf16({3, 4}), f32({3, 4}), f32({3}), f32({4})},
                    {{"grad_x", &B::grad_x},
                     {"grad_weight", &B::grad_weight},
                     {"grad_y", &B::grad_y},
                     {"x", &B::x, kDefinesShape},
                     {"inv_rms", &B::inv_rms},
                     {"weight", &B::weight}});
}

TEST_F(Contracts, Matmul) {
  using F = ops::Matmul;
  const std::vector<Field<F>> fields{{"out", &F::out},
                                     {"a", &F::a, kDefinesShape},
                                     {"b", &F::b, kDefinesShape},
                                     {"bias", &F::bias, kOptional},
                                     {"addend", &F::addend, kOptional}};
  expect_checked<F>("matmul", matmul, {f32({3, 5}), bf16({3, 4}), bf16({5, 4}), false, true, f32({5}), f32({3, 5})},
                    fields);
  expect_checked<F>("matmul", matmul, {f32({3, 5}), f32({4, 3}), f32({4, 5}), true, false, f32({5}), f32({3, 5})},
                    fields);
  expect_refused<F>(matmul, "[matmul] out is bf16", {bf16({3, 5}), f32({3, 4}), f32({4, 5})});
  expect_refused<F>(matmul, "[matmul] addend is f32[3, 5], expected the dtype of bf16",
                    {.out = bf16({3, 5}), .a = bf16({3, 4}), .b = bf16({4, 5}), .addend = f32({3, 5})});
  using B = BiasBackward;
  expect_checked<B>("bias_backward", bias_backward, {f32({4}), bf16({3, 4})},
                    {{"grad_bias", &B::grad_bias}, {"grad_out", &B::grad_out, kDefinesShape | kAnyRows}});
}

TEST_F(Contracts, Rotary) {
  using F = ops::Rotary;
  expect_checked<F>("rotary", rotary, {bf16({5, 24}), 5, 2, 10000}, {{"qkv", &F::qkv, kAnyRows}});
  expect_refused<F>(rotary, "[rotary] qkv is f32[5, 9], expected 3 x 1 heads", {f32({5, 9}), 5, 1, 10000});
  expect_refused<F>(rotary, "[rotary] sequence_length is 0", {f32({5, 24}), 0, 2, 10000});
  expect_refused<F>(rotary, "[rotary] heads is 0", {f32({5, 24}), 5, 0, 10000});
  expect_refused<F>(rotary, "[rotary] base is 0", {f32({5, 24}), 5, 2, 0});
  expect_refused<F>(rotary, "[rotary] first_position is -1", {f32({5, 24}), 5, 2, 10000, false, -1});
}

TEST_F(Contracts, Attention) {
  const AttentionShape shape{2, 3, 2, 4};
  using F = AttentionForward;
  expect_checked<F>("attention_forward", attention_forward, {bf16({6, 8}), f32({2, 2, 3}), bf16({6, 24}), shape},
                    {{"out", &F::out}, {"log_sum_exp", &F::log_sum_exp}, {"qkv", &F::qkv}});
  expect_refused<F>(attention_forward, "[attention_forward] shape is batch 2, sequence_length 3, heads 0",
                    {bf16({6, 8}), f32({2, 2, 3}), bf16({6, 24}), {2, 3, 0, 4}});
  using B = AttentionBackward;
  expect_checked<B>("attention_backward", attention_backward,
                    {bf16({6, 24}), bf16({6, 8}), bf16({6, 24}), bf16({6, 8}), f32({2, 2, 3}), shape},
                    {{"grad_qkv", &B::grad_qkv},
                     {"grad_out", &B::grad_out},
                     {"qkv", &B::qkv},
                     {"out", &B::out},
                     {"log_sum_exp", &B::log_sum_exp}});
}

TEST_F(Contracts, AttentionLengths) {
  using F = AttentionForward;
  using B = AttentionBackward;
  const AttentionShape shape{2, 3, 2, 4, AttentionMask::kPrefix};
  const F forward{bf16({6, 8}), f32({2, 2, 3}), bf16({6, 24}), shape, i32({2}), i32({2})};
  expect_checked<F>("attention_forward", attention_forward, forward,
                    {{"prefix_lengths", &F::prefix_lengths}, {"key_lengths", &F::key_lengths, kOptional}});
  const B backward{bf16({6, 24}), bf16({6, 8}), bf16({6, 24}), bf16({6, 8}), f32({2, 2, 3}), shape, i32({2}), i32({2})};
  expect_checked<B>("attention_backward", attention_backward, backward,
                    {{"prefix_lengths", &B::prefix_lengths}, {"key_lengths", &B::key_lengths, kOptional}});
  F causal = forward;
  causal.shape.mask = AttentionMask::kCausal;
  expect_refused<F>(attention_forward, "[attention_forward] prefix_lengths is given, expected with the prefix mask",
                    causal);
}

TEST_F(Contracts, AttentionCached) {
  using F = ops::AttentionCached;
  const F valid{bf16({6, 8}), bf16({2, 2, 9, 4}), bf16({2, 2, 9, 4}), bf16({6, 24}), {2, 3, 2, 4}, 6};
  expect_checked<F>("attention_cached", attention_cached, valid,
                    {{"out", &F::out}, {"keys", &F::keys}, {"values", &F::values}, {"qkv", &F::qkv}});
  F wrong = valid;
  wrong.first_position = 7;
  expect_refused<F>(attention_cached, "[attention_cached] positions 7 to 9, expected within the capacity of 9", wrong);
  wrong.first_position = -1;
  expect_refused<F>(attention_cached, "[attention_cached] positions -1 to 1", wrong);
  wrong = valid;
  wrong.shape.mask = AttentionMask::kFull;
  expect_refused<F>(attention_cached, "[attention_cached] the mask is not causal", wrong);
}

TEST_F(Contracts, Activation) {
  using F = ActivationForward;
  expect_checked<F>("activation_forward", activation_forward, {bf16({3, 4}), bf16({3, 8}), ops::Activation::kSwiglu},
                    {{"out", &F::out, kDefinesShape}, {"pre", &F::pre}});
  using B = ActivationBackward;
  const B routed{f32({3, 4}), f32({3, 4}), f32({3, 4}), ops::Activation::kGelu,
                 f32({3, 4}), f32({5}),    f32({5}),    i32({3})};
  expect_checked<B>("activation_backward", activation_backward, routed,
                    {{"grad_pre", &B::grad_pre},
                     {"grad_out", &B::grad_out, kDefinesShape},
                     {"pre", &B::pre},
                     {"scaled_out", &B::scaled_out, kOptional},
                     {"gate", &B::gate, kDefinesShape},
                     {"grad_gate", &B::grad_gate},
                     {"row_assignment", &B::row_assignment, kOptional}});
  B by_row = routed;
  by_row.row_assignment = {};
  expect_refused<B>(activation_backward, "[activation_backward] gate is f32[5], expected 3 elements", by_row);
  by_row.gate = by_row.grad_gate = f32({3});
  expect_checked<B>("activation_backward", activation_backward, by_row,
                    {{"gate", &B::gate}, {"grad_gate", &B::grad_gate}});
}

TEST_F(Contracts, CrossEntropy) {
  using F = CrossEntropy;
  const F valid{f32({3}), f32({3, 5}), i32({3}), bf16({3, 5}), f32({1})};
  expect_checked<F>("cross_entropy", cross_entropy, valid,
                    {{"loss", &F::loss},
                     {"logits", &F::logits, kDefinesShape},
                     {"targets", &F::targets},
                     {"grad_logits", &F::grad_logits, kOptional},
                     {"scale", &F::scale, kOptional}});
  F in_place = valid;
  in_place.grad_logits.data = in_place.logits.data;
  expect_refused<F>(cross_entropy, "[cross_entropy] grad_logits is bf16[3, 5]", in_place);
  expect_refused<F>(cross_entropy, "[cross_entropy] logits is f32[3, 0]", {f32({3}), f32({3, 0}), i32({3})});
}

TEST_F(Contracts, Elementwise) {
  using C = Cast;
  const C valid{bf16({6}), f32({2, 3})};
  expect_checked<C>("cast", cast, valid, {{"out", &C::out}, {"in", &C::in, kDefinesShape}});
  C in_place = valid;
  in_place.out.data = in_place.in.data;
  expect_refused<C>(cast, "[cast] out is bf16[6]", in_place);
  using A = Add;
  const A sum{bf16({6}), f32({2, 3}), bf16({6})};
  expect_checked<A>("add", add, sum, {{"out", &A::out}, {"a", &A::a, kDefinesShape}, {"b", &A::b}});
  A onto = sum;
  onto.out.data = onto.a.data;
  expect_refused<A>(add, "[add] out is bf16[6]", onto);
  using R = Reduce;
  expect_checked<R>("reduce", reduce, {f32({1}), f32({2, 3}), false, f32({1})},
                    {{"out", &R::out}, {"scale", &R::scale, kOptional}});
  expect_refused<R>(reduce, "[reduce] in is bf16", {f32({1}), bf16({2, 3})});
}

TEST_F(Contracts, Adam) {
  using C = ClipScale;
  const C clip{f32({kStepScalarCount}), f32({1}), f32({1}), 1};
  expect_checked<C>("clip_scale", clip_scale, clip,
                    {{"scalars", &C::scalars}, {"sum_squares", &C::sum_squares}, {"loss", &C::loss}});
  C negative = clip;
  negative.clip_norm = -1;
  expect_refused<C>(clip_scale, "[clip_scale] clip_norm is -1", negative);
  using A = AdamUpdate;
  const A update{f32({9}), f32({9}), f32({9}), f32({9}), f32({kStepScalarCount}), bf16({9}), 0.9f, 0.95f, 1e-8f, 0};
  expect_checked<A>("adam_update", adam_update, update,
                    {{"master", &A::master, kDefinesShape},
                     {"moment1", &A::moment1},
                     {"moment2", &A::moment2},
                     {"grad", &A::grad},
                     {"scalars", &A::scalars},
                     {"copy", &A::copy, kOptional}});
}

}  // namespace
}  // namespace mhmoe
