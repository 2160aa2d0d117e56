#include "nn/lm_head.h"

#include <algorithm>

#include "ops/cross_entropy.h"
#include "ops/matmul.h"

namespace mhmoe::nn {
namespace {

// Logits of one chunk: large enough for fast products, small beside everything else. Every chunk reads the table and
// adds to its whole gradient: on a GPU, products that are not a thousand rows deep would wait for that memory.
constexpr int64_t kChunkElements = int64_t{8} << 20, kDeviceChunkElements = int64_t{256} << 20;
constexpr int64_t kSmallestChunk = 64, kChunkMultiple = 16;

}  // namespace

LmHead::LmHead(const Parameter& weight, int64_t chunk_rows) : weight_(weight), chunk_rows_(chunk_rows) {}

int64_t LmHead::chunk_rows(const Pass& pass, int64_t rows) const {
  const int64_t elements = pass.ctx.kind() == DeviceKind::kCuda ? kDeviceChunkElements : kChunkElements;
  const int64_t wanted = chunk_rows_ > 0 ? chunk_rows_ : std::max(kSmallestChunk, elements / weight_.dims[0]);
  if (chunk_rows_ > 0 || rows <= wanted) return std::min(rows, wanted);
  // Equal chunks: a small last one would run badly, and products of another size need other kernels.
  const int64_t chunks = (rows + wanted - 1) / wanted, equal = (rows + chunks - 1) / chunks;
  return (equal + kChunkMultiple - 1) / kChunkMultiple * kChunkMultiple;
}

void LmHead::logits(Pass& pass, const Tensor& logits, const Tensor& hidden) const {
  const StepPartScope part(pass.ctx, StepPart::kLoss);
  ops::matmul(pass.ctx, {.out = logits, .a = hidden, .b = weight_.value, .transpose_b = true});
  pass.ctx.observe(logits, "logits");
}

void LmHead::logits_and_losses(Pass& pass, const Tensor& logits, const Tensor& losses, const Tensor& grad_logits,
                               const Tensor& hidden, const Tensor& targets, const Tensor& scale) const {
  this->logits(pass, logits, hidden);
  ops::cross_entropy(
      pass.ctx, {.loss = losses, .logits = logits, .targets = targets, .grad_logits = grad_logits, .scale = scale});
}

void LmHead::forward(Pass& pass, const Tensor& losses, const Tensor& hidden, const Tensor& targets) const {
  const StepPartScope part(pass.ctx, StepPart::kLoss);
  const ArenaScope scope = pass.scope();
  const int64_t rows = hidden.rows(), chunk = chunk_rows(pass, rows);
  const Tensor buffer = pass.allocate("logits chunk", DType::kF32, {chunk, weight_.dims[0]});
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    logits_and_losses(pass, buffer.slice_rows(0, n), losses.slice(begin, n), {}, hidden.slice_rows(begin, n),
                      targets.slice(begin, n));
  }
}

void LmHead::forward_backward(Pass& pass, const Tensor& losses, const Tensor& grad_hidden, const Tensor& hidden,
                              const Tensor& targets, const Tensor& scale) const {
  const StepPartScope part(pass.ctx, StepPart::kLoss);
  const ArenaScope scope = pass.scope();
  const int64_t rows = hidden.rows(), chunk = chunk_rows(pass, rows), vocab = weight_.dims[0];
  const Tensor buffer = pass.allocate("logits chunk", DType::kF32, {chunk, vocab});
  const Tensor grad_buffer =
      pass.compute == DType::kF32 ? buffer : pass.allocate("logits chunk", pass.compute, {chunk, vocab});
  const Tensor grad_weight = pass.gradients->gradient_of(weight_);
  for (int64_t begin = 0; begin < rows; begin += chunk) {
    const int64_t n = std::min(chunk, rows - begin);
    const Tensor grad_logits = grad_buffer.slice_rows(0, n);
    const Tensor x = hidden.slice_rows(begin, n);
    logits_and_losses(pass, buffer.slice_rows(0, n), losses.slice(begin, n), grad_logits, x, targets.slice(begin, n),
                      scale);
    ops::matmul(pass.ctx, {.out = grad_weight, .a = grad_logits, .b = x, .transpose_a = true, .addend = grad_weight});
    ops::matmul(pass.ctx, {.out = grad_hidden.slice_rows(begin, n), .a = grad_logits, .b = weight_.value});
  }
}

}  // namespace mhmoe::nn
