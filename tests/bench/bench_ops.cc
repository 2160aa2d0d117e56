// Speed of the CPU's heavy ops at the sizes of an MH-MoE layer with 3 heads, as arithmetic rate.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "core/parallel_for.h"
#include "core/philox.h"
#include "cpu/backend.h"
#include "ops/kernel_table.h"

namespace mhmoe {
namespace {

class Operands {
 public:
  Context& ctx() { return *ctx_; }
  Tensor random(DType dtype, std::initializer_list<int64_t> dims) {
    const Philox philox(1, "bench");
    const Tensor tensor = ctx_->step().allocate("operand", dtype, dims);
    for (int64_t i = 0; i < tensor.count(); ++i) {
      const float value = philox.uniform(static_cast<uint64_t>(i)) - 0.5F;
      if (dtype == DType::kF32) {
        tensor.as<float>()[i] = value;
      } else {
        tensor.as<bfloat16>()[i] = bfloat16(value);
      }
    }
    return tensor;
  }
  Tensor integers(const std::vector<int32_t>& elements) {
    const Tensor tensor = ctx_->step().allocate("integers", DType::kI32, {static_cast<int64_t>(elements.size())});
    ctx_->upload(tensor, elements.data());
    return tensor;
  }

 private:
  std::unique_ptr<Context> ctx_ = cpu::backend().create_context(0);
};

DType dtype_of(const benchmark::State& state) {
  return state.range(0) == 0 ? DType::kF32 : DType::kBF16;
}

void report(benchmark::State& state, double operations) {
  state.counters["FLOP/s"] = benchmark::Counter(operations, benchmark::Counter::kIsIterationInvariantRate);
}

void dense(benchmark::State& state) {
  Operands operands;
  const int64_t m = state.range(1), n = state.range(2), k = state.range(3);
  const Tensor a = operands.random(dtype_of(state), {m, k}), b = operands.random(dtype_of(state), {n, k});
  const Tensor out = operands.random(dtype_of(state), {m, n});
  for (auto _ : state) ops::matmul(operands.ctx(), {.out = out, .a = a, .b = b, .transpose_b = true});
  report(state, 2.0 * m * n * k);
}

enum class GroupedKind { kForward, kInputGrad, kWeightGrad };

// 96 experts, width 256, hidden 512 (range 2: everything to one expert), `range 1` rows each.
template <GroupedKind kKind>
void grouped(benchmark::State& state) {
  Operands operands;
  const int64_t experts = 96, width = 256, hidden = 512, rows = experts * state.range(1);
  std::vector<int32_t> begin(experts), count(experts, static_cast<int32_t>(state.range(1)));
  if (state.range(2) != 0) count.assign(experts, 0), count[0] = static_cast<int32_t>(rows);
  for (int64_t e = 1; e < experts; ++e) begin[e] = begin[e - 1] + count[e - 1];
  const ops::RowGroups groups{operands.integers(begin), operands.integers(count)};
  const DType dtype = dtype_of(state);
  const Tensor narrow = operands.random(dtype, {rows, width}), wide = operands.random(dtype, {rows, hidden});
  const Tensor weight =
      operands.random(kKind == GroupedKind::kWeightGrad ? DType::kF32 : dtype, {experts, hidden, width});
  for (auto _ : state) {
    if constexpr (kKind == GroupedKind::kForward) {
      ops::grouped_matmul(operands.ctx(), {wide, narrow, weight, groups, true});
    } else if constexpr (kKind == GroupedKind::kInputGrad) {
      ops::grouped_matmul(operands.ctx(), {narrow, wide, weight, groups, false});
    } else {
      ops::grouped_weight_grad(operands.ctx(), {weight, wide, narrow, groups});
    }
  }
  report(state, 2.0 * static_cast<double>(rows * width * hidden));
}

// Operations are counted as if causality halved the scores exactly; backward as 2.5 times forward.
template <bool kBackward>
void attention(benchmark::State& state) {
  Operands operands;
  const ops::AttentionShape shape{8, state.range(1), 12, 64, ops::AttentionMask::kCausal};
  const int64_t tokens = shape.batch * shape.sequence_length, width = shape.heads * shape.head_size;
  const DType dtype = dtype_of(state);
  const Tensor qkv = operands.random(dtype, {tokens, 3 * width}),
               grad_qkv = operands.random(dtype, {tokens, 3 * width});
  const Tensor out = operands.random(dtype, {tokens, width}), grad_out = operands.random(dtype, {tokens, width});
  const Tensor log_sum_exp = operands.random(DType::kF32, {shape.batch, shape.heads, shape.sequence_length});
  ops::attention_forward(operands.ctx(), {out, log_sum_exp, qkv, shape});
  for (auto _ : state) {
    if constexpr (kBackward) {
      ops::attention_backward(operands.ctx(), {grad_qkv, grad_out, qkv, out, log_sum_exp, shape});
    } else {
      ops::attention_forward(operands.ctx(), {out, log_sum_exp, qkv, shape});
    }
  }
  report(state, 2.0 * static_cast<double>(tokens * shape.sequence_length * width) * (kBackward ? 2.5 : 1));
}

void cross_entropy(benchmark::State& state) {
  Operands operands;
  const int64_t rows = 256, vocabulary = 50257;
  const Tensor logits = operands.random(DType::kF32, {rows, vocabulary}), loss = operands.random(DType::kF32, {rows});
  const Tensor grad = operands.random(dtype_of(state), {rows, vocabulary});
  const Tensor targets = operands.integers(std::vector<int32_t>(rows, 5));
  for (auto _ : state) ops::cross_entropy(operands.ctx(), {loss, logits, targets, grad});
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(logits.bytes() + grad.bytes()));
}

void adam(benchmark::State& state) {
  Operands operands;
  const int64_t n = int64_t{1} << 23;
  const Tensor master = operands.random(DType::kF32, {n}), m = operands.random(DType::kF32, {n});
  const Tensor v = operands.random(DType::kF32, {n}), grad = operands.random(DType::kF32, {n});
  operands.ctx().fill_zero(v);
  const Tensor scalars = operands.random(DType::kF32, {ops::kStepScalarCount});
  for (int i = 0; i < ops::kStepScalarCount; ++i) scalars.as<float>()[i] = i == ops::kRefuse ? 0.0F : 0.5F;
  const Tensor copy = state.range(0) == 0 ? Tensor() : operands.random(DType::kBF16, {n});
  for (auto _ : state) {
    ops::adam_update(operands.ctx(), {.master = master,
                                      .moment1 = m,
                                      .moment2 = v,
                                      .grad = grad,
                                      .scalars = scalars,
                                      .copy = copy,
                                      .beta1 = 0.9F,
                                      .beta2 = 0.98F,
                                      .eps = 1e-6F,
                                      .weight_decay = 0.1F});
  }
  state.SetBytesProcessed(state.iterations() * 7 * static_cast<int64_t>(master.bytes()));
}

void dense_sizes(benchmark::internal::Benchmark* benchmark) {
  for (const int64_t dtype : {0, 1}) {
    benchmark->Args({dtype, 1024, 768, 768})->Args({dtype, 1024, 2304, 768})->Args({dtype, 512, 50304, 768});
  }
}

void grouped_sizes(benchmark::internal::Benchmark* benchmark) {
  for (const int64_t dtype : {0, 1}) benchmark->Args({dtype, 32, 0})->Args({dtype, 64, 0})->Args({dtype, 64, 1});
}

BENCHMARK(dense)->Apply(dense_sizes)->UseRealTime();
BENCHMARK(grouped<GroupedKind::kForward>)->Apply(grouped_sizes)->UseRealTime();
BENCHMARK(grouped<GroupedKind::kInputGrad>)->Apply(grouped_sizes)->UseRealTime();
BENCHMARK(grouped<GroupedKind::kWeightGrad>)->Apply(grouped_sizes)->UseRealTime();
BENCHMARK(attention<false>)->ArgsProduct({{0, 1}, {256, 1024}})->UseRealTime();
BENCHMARK(attention<true>)->ArgsProduct({{0, 1}, {256, 1024}})->UseRealTime();
BENCHMARK(cross_entropy)->Arg(0)->Arg(1)->UseRealTime();
BENCHMARK(adam)->Arg(0)->Arg(1)->UseRealTime();

}  // namespace
}  // namespace mhmoe

BENCHMARK_MAIN();
