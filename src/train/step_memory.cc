#include "train/step_memory.h"

#include <algorithm>
#include <cstring>

#include "ops/elementwise.h"

namespace mhmoe::train {
namespace {

int64_t record_words(const StepMemory::Shape& shape) {
  return shape.moe_layers * (1 + shape.experts);
}

Tensor allocate_ids(Context& ctx, const char* name, const StepMemory::Shape& shape) {
  return ctx.state().allocate(name, DType::kI32, {shape.sequences, shape.length});
}

Tensor allocate_words(Context& ctx, const char* name, int64_t count) {
  return ctx.state().allocate(name, DType::kF32, {count});
}

// The same words as integers.
Tensor as_integers(const Tensor& words, int64_t rows, int64_t cols) {
  return {words.data, DType::kI32, {rows, cols}, words.device};
}

}  // namespace

void upload_sequences(Context& ctx, const DeviceBatch& to, const HostBatch& from, int64_t first) {
  ctx.upload(to.tokens, from.tokens.data() + first * from.length);
  ctx.upload(to.targets, from.targets.data() + first * from.length);
}

StepMemory::StepMemory(Context& ctx, const Shape& shape)
    : shape_(shape),
      results_(allocate_words(ctx, "step results",
                              StepScalars::kCount + shape.all_micro_batches() * (1 + record_words(shape)))),
      losses_(results_.slice(StepScalars::kCount, shape.all_micro_batches())),
      records_(results_.slice(StepScalars::kCount + losses_.count(), shape.all_micro_batches() * record_words(shape))),
      loss_(allocate_words(ctx, "micro-batch loss", 1)),
      record_(allocate_words(ctx, "micro-batch statistics", record_words(shape))),
      words_(static_cast<size_t>(results_.count())),
      balance_loss_(static_cast<size_t>(shape.all_micro_batches() * shape.moe_layers)),
      load_(balance_loss_.size() * static_cast<size_t>(shape.experts)),
      batch_{.tokens = allocate_ids(ctx, "tokens", shape), .targets = allocate_ids(ctx, "targets", shape)},
      scalars_(results_.slice(0, StepScalars::kCount)) {
  const int64_t layers = shape.moe_layers;
  statistics_ = {.balance_loss = record_.slice(0, layers),
                 .load = as_integers(record_.slice(layers, layers * shape.experts), layers, shape.experts)};
}

size_t StepMemory::upload_bytes() const {
  const size_t batch_bytes = batch_.tokens.bytes() + batch_.targets.bytes();
  return static_cast<size_t>(shape_.micro_batches) * batch_bytes + scalars_.inputs.bytes();
}

void StepMemory::upload(Context& ctx, const HostBatch& step, int64_t index) const {
  upload_sequences(ctx, batch_, step, index * shape_.sequences);
}

void StepMemory::keep_statistics(Context& ctx, int64_t index) const {
  const int64_t words = record_.count(), number = shape_.rank * shape_.micro_batches + index;
  ctx.copy(losses_.slice(number, 1), loss_);
  ctx.copy(records_.slice(number * words, words), record_);
}

void StepMemory::gather_statistics(Context& ctx, Communicator& world) const {
  if (world.size() > 1) {
    const auto gather = [&](const Tensor& all) {
      const int64_t own = all.count() / world.size();
      world.wait(world.all_gather(all, all.slice(world.rank() * own, own), "statistics"));
    };
    gather(losses_);
    if (records_.count() > 0) gather(records_);
  }
  ctx.fill_zero(scalars_.loss);
  ops::reduce(ctx, {.out = scalars_.loss, .in = losses_});
}

void StepMemory::download(Context& ctx) {
  ctx.download(words_.data(), results_);
  const auto layers = static_cast<size_t>(shape_.moe_layers);
  const size_t loads = layers * static_cast<size_t>(shape_.experts);
  const float* record = words_.data() + StepScalars::kCount + losses_.count();
  for (size_t i = 0; i < static_cast<size_t>(shape_.all_micro_batches()); ++i, record += layers + loads) {
    std::copy_n(record, layers, balance_loss_.data() + i * layers);
    if (loads > 0) std::memcpy(load_.data() + i * loads, record + layers, loads * sizeof(int32_t));
  }
}

}  // namespace mhmoe::train
