// The ops of routing and of experts refuse every wrong argument, and say which one of which op.
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

TEST_F(Contracts, Router) {
  using F = RouterForward;
  const F forward{f32({5, 4}), i32({5, 2}), f32({5, 2}), f32({4}),
                  f32({1}),    f32({5, 4}), false,       BalanceCounts::kFirstChoice};
  expect_checked<F>("router_forward", router_forward, forward,
                    {{"probabilities", &F::probabilities},
                     {"expert_index", &F::expert_index, kDefinesShape},
                     {"gate_weight", &F::gate_weight},
                     {"share", &F::share},
                     {"balance_loss", &F::balance_loss},
                     {"logits", &F::logits, kDefinesShape}});
  F greedy = forward;
  greedy.expert_index = i32({5, 5});
  expect_refused<F>(router_forward, "[router_forward] expert_index is i32[5, 5], expected between 1 and 4", greedy);
  using B = RouterBackward;
  const B backward{f32({5, 4}), f32({5, 2}), f32({5, 4}), i32({5, 2}), f32({4}), false, 1};
  expect_checked<B>("router_backward", router_backward, backward,
                    {{"grad_logits", &B::grad_logits},
                     {"grad_gate", &B::grad_gate},
                     {"probabilities", &B::probabilities, kDefinesShape},
                     {"expert_index", &B::expert_index, kDefinesShape},
                     {"share", &B::share}});
}

TEST_F(Contracts, Routing) {
  using A = AssignSlots;
  const A bounded{i32({5, 2}), i32({5, 2}), i32({12}), i32({4}), i32({4}), i32({4}), i32({5, 2}), 3};
  A dropless = bounded;
  dropless.capacity = 0, dropless.row_assignment = i32({10});
  for (const A& args : {bounded, dropless}) {
    expect_checked<A>("assign_slots", assign_slots, args,
                      {{"slot", &A::slot},
                       {"row_of", &A::row_of},
                       {"row_assignment", &A::row_assignment},
                       {"begin", &A::begin},
                       {"rows", &A::rows},
                       {"load", &A::load, kDefinesShape},
                       {"expert_index", &A::expert_index, kDefinesShape}});
  }
  A negative = bounded, huge = bounded;
  negative.capacity = -1, huge.capacity = int64_t{1} << 31;
  expect_refused<A>(assign_slots, "[assign_slots] capacity is -1", negative);
  expect_refused<A>(assign_slots, "[assign_slots] capacity is 2147483648", huge);
  using G = GatherRows;
  expect_checked<G>("gather_rows", gather_rows, {bf16({7, 4}), f32({5, 4}), i32({7}), 2},
                    {{"out", &G::out, kDefinesShape},
                     {"x", &G::x, kDefinesShape | kAnyRows},
                     {"row_assignment", &G::row_assignment}});
  expect_refused<G>(gather_rows, "[gather_rows] out is f32", {f32({7, 4}), bf16({5, 4}), i32({7}), 2});
  expect_refused<G>(gather_rows, "[gather_rows] k is 0", {f32({7, 4}), f32({5, 4}), i32({7}), 0});
  using C = CombineRows;
  expect_checked<C>("combine_rows", combine_rows, {bf16({5, 4}), f32({9, 4}), i32({5, 2}), f32({5, 2}), f32({5, 4})},
                    {{"y", &C::y, kDefinesShape},
                     {"rows", &C::rows, kAnyRows},
                     {"row_of", &C::row_of, kDefinesShape},
                     {"gate", &C::gate, kOptional},
                     {"addend", &C::addend, kOptional}});
  C onto{bf16({5, 4}), f32({9, 4}), i32({5, 2})};
  onto.addend = f32({5, 4}), onto.addend.data = onto.y.data;
  expect_refused<C>(combine_rows, "[combine_rows] addend is f32[5, 4]", onto);
}

TEST_F(Contracts, GroupedMatmul) {
  using F = GroupedMatmul;
  const std::vector<Field<F>> fields{{"out", &F::out},
                                     {"a", &F::a, kDefinesShape},
                                     {"weight", &F::weight, kDefinesShape},
                                     {"groups.begin", [](F& args) -> Tensor& { return args.groups.begin; }},
                                     {"groups.rows", [](F& args) -> Tensor& { return args.groups.rows; }},
                                     {"bias", &F::bias, kOptional}};
  const RowGroups groups{i32({3}), i32({3})};
  const F forward{f32({7, 5}), bf16({7, 4}), bf16({3, 5, 4}), groups, true, f32({3, 5})};
  expect_checked<F>("grouped_matmul", grouped_matmul, forward, fields);
  expect_checked<F>("grouped_matmul", grouped_matmul, {f32({7, 4}), f32({7, 5}), f32({3, 5, 4}), groups, false},
                    {fields.begin(), fields.end() - 1});
  F wrong = forward;
  wrong.out = f32({7, 4}), wrong.a = bf16({7, 5}), wrong.transpose_weight = false;
  expect_refused<F>(grouped_matmul, "[grouped_matmul] bias is given", wrong);
  wrong.weight = bf16({15, 4});
  expect_refused<F>(grouped_matmul, "[grouped_matmul] weight is bf16[15, 4], expected one matrix an expert", wrong);
  F activated = forward;
  activated.weight = bf16({3, 6, 4}), activated.out = bf16({7, 6}), activated.bias = {};
  activated.activated = bf16({7, 3});
  expect_checked<F>("grouped_matmul", grouped_matmul, activated, {{"activated", &F::activated, kOptional}});
  activated.activation = Activation::kRelu;
  expect_refused<F>(grouped_matmul, "[grouped_matmul] activated is bf16[7, 3], out is bf16[7, 6]: not its width",
                    activated);
  activated.transpose_weight = false, activated.a = bf16({7, 6}), activated.out = bf16({7, 4});
  expect_refused<F>(grouped_matmul, "[grouped_matmul] activated is given", activated);
  F unequal = forward;
  unequal.groups.capacity = 2;
  expect_refused<F>(grouped_matmul,
                    "[grouped_matmul] row buffers have 7 rows, expected 3 experts times a capacity of 2", unequal);
  unequal.groups.capacity = -1;
  expect_refused<F>(grouped_matmul, "[grouped_matmul] groups.capacity is -1", unequal);
  using W = GroupedWeightGrad;
  expect_checked<W>("grouped_weight_grad", grouped_weight_grad, {f32({3, 5, 4}), bf16({7, 5}), bf16({7, 4}), groups},
                    {{"grad_weight", &W::grad_weight, kDefinesShape},
                     {"grad_out", &W::grad_out, kDefinesShape},
                     {"x", &W::x},
                     {"groups.begin", [](W& args) -> Tensor& { return args.groups.begin; }},
                     {"groups.rows", [](W& args) -> Tensor& { return args.groups.rows; }}});
  using B = GroupedBiasBackward;
  expect_checked<B>("grouped_bias_backward", grouped_bias_backward,
                    {f32({3, 5}), bf16({7, 5}), groups, f32({3, 5}), f32({8}), f32({8}), i32({7})},
                    {{"grad_bias", &B::grad_bias, kDefinesShape},
                     {"grad_out", &B::grad_out, kDefinesShape},
                     {"groups.begin", [](B& args) -> Tensor& { return args.groups.begin; }},
                     {"groups.rows", [](B& args) -> Tensor& { return args.groups.rows; }},
                     {"bias", &B::bias},
                     {"gate", &B::gate, kDefinesShape},
                     {"grad_gate", &B::grad_gate},
                     {"row_assignment", &B::row_assignment, kOptional}});
  expect_checked<B>("grouped_bias_backward", grouped_bias_backward,
                    {f32({3, 5}), bf16({7, 5}), groups, f32({3, 5}), f32({7}), f32({7})},
                    {{"gate", &B::gate}, {"grad_gate", &B::grad_gate}});
}

}  // namespace
}  // namespace mhmoe
