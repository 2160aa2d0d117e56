// What the attention kernels share: one head's rows of a tensor, and which keys a query sees (ops/attention.h).
#pragma once

#include <cmath>

#include "kernels/vector.cuh"
#include "ops/attention.h"

namespace mhmoe::cuda {

// Of one sequence: query i sees the first of(i) keys and none behind; a later query at least as many as an earlier one.
struct VisibleKeys {
  int prefix, keys;
  __device__ int of(int query) const {
    const int before = query + 1 > prefix ? query + 1 : prefix;
    return before < keys ? before : keys;
  }
};

// Rows `stride` elements apart.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
  __device__ T* row(int64_t i) const { return data + i * stride; }
  __device__ Rows from(int64_t i) const { return {row(i), stride}; }
};

// Kernel parameters. Heads are numbered [batch, heads], rows of heads [batch, heads, length] like log_sum_exp.
struct AttentionSizes {
  int64_t batch;
  int length, heads, head_size;
  int prefix;  // where prefix_lengths is null
  const int32_t *prefix_lengths, *key_lengths;
  float scale;

  constexpr int64_t head_count() const { return batch * heads; }

  __device__ VisibleKeys visible_keys(int64_t head_number) const {
    const int64_t sequence = head_number / heads;
    return {length_of(prefix_lengths, sequence, prefix), length_of(key_lengths, sequence, length)};
  }

  // One head's rows of a tensor [batch * length, parts, heads, head_size], from its sequence's first.
  template <class T>
  __device__ Rows<T> rows(T* tensor, int64_t head_number, int parts, int part) const {
    const int64_t stride = int64_t{parts} * heads * head_size;
    const int64_t column = (int64_t{part} * heads + head_number % heads) * head_size;
    return {tensor + head_number / heads * length * stride + column, stride};
  }

 private:
  __device__ int length_of(const int32_t* lengths, int64_t sequence, int otherwise) const {
    if (lengths == nullptr) return otherwise;
    const int given = lengths[sequence];
    return given < 0 ? 0 : given < length ? given : length;
  }
};

inline AttentionSizes attention_sizes(const ops::AttentionShape& shape, const Tensor& prefix_lengths = {},
                                      const Tensor& key_lengths = {}) {
  const int length = static_cast<int>(shape.sequence_length);
  return {.batch = shape.batch,
          .length = length,
          .heads = static_cast<int>(shape.heads),
          .head_size = static_cast<int>(shape.head_size),
          .prefix = shape.mask == ops::AttentionMask::kFull ? length : 0,
          .prefix_lengths = elements<const int32_t>(prefix_lengths),
          .key_lengths = elements<const int32_t>(key_lengths),
          .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_size))};
}

// Both ways to compute it; kernels/attention.cu chooses. delta: f32 [batch, heads, length] of grad_out . out.
void plain_attention_forward(Context& ctx, const ops::AttentionForward& args);
void plain_attention_backward(Context& ctx, const ops::AttentionBackward& args, const Tensor& delta);
// On tensor cores: bf16 at 16-byte aligned addresses, head size 32, 64, 96 or 128.
void flash_attention_forward(Context& ctx, const ops::AttentionForward& args);
void flash_attention_backward(Context& ctx, const ops::AttentionBackward& args, const Tensor& delta);

}  // namespace mhmoe::cuda
