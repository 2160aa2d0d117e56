// Where attention finds a head of a sequence, and what its queries see.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cpu/tiles.h"
#include "ops/attention.h"

namespace mhmoe::cpu {

// One sequence's.
struct Sizes {
  template <class Args>
  Sizes(const Args& args, int64_t sequence)
      : length(args.shape.sequence_length),
        heads(args.shape.heads),
        size(args.shape.head_size),
        prefix(args.shape.mask == ops::AttentionMask::kFull ? length : length_of(args.prefix_lengths, sequence, 0)),
        keys(length_of(args.key_lengths, sequence, length)),
        scale(1.0f / std::sqrt(static_cast<float>(size))) {}
  int64_t length, heads, size;
  int64_t prefix, keys;  // keys before `prefix` are seen by every query, keys from `keys` on by none
  float scale;

  // Every query sees the first keys, so many, and none behind: a later query at least as many as an earlier one.
  int64_t visible(int64_t query) const { return std::min(std::max(query + 1, prefix), keys); }

 private:
  int64_t length_of(const Tensor& lengths, int64_t sequence, int64_t otherwise) const {
    if (lengths.empty()) return otherwise;
    return std::clamp<int64_t>(lengths.as<const int32_t>()[sequence], 0, length);
  }
};

// Where a head of a sequence lies: its first token, its columns in a [tokens, width] tensor, its first log_sum_exp.
struct Place {
  Place(const Sizes& sizes, int64_t sequence, int64_t head)
      : token(sequence * sizes.length),
        column(head * sizes.size),
        width(sizes.heads * sizes.size),
        row((sequence * sizes.heads + head) * sizes.length) {}
  int64_t token, column, width, row;
};

// One head's columns of a [tokens, width] tensor, from its sequence's first token.
template <class T>
struct Head {
  T* data;
  int64_t ld;

  Head(const Tensor& tensor, int64_t first_token, int64_t first_column)
      : data(tensor.as<T>() + first_token * tensor.cols() + first_column), ld(tensor.cols()) {}
  T* row(int64_t r) const { return data + r * ld; }
  Stored<T> from(int64_t r) const { return {row(r), ld}; }
  Stored<T> transposed() const { return {data, ld, true}; }
};

// A head's queries, keys and values, or their gradients, of a [tokens, 3 width] tensor.
template <class T>
struct Qkv {
  Qkv(const Tensor& qkv, const Place& at)
      : q(qkv, at.token, at.column),
        k(qkv, at.token, at.width + at.column),
        v(qkv, at.token, 2 * at.width + at.column) {}
  Head<T> q, k, v;
};

}  // namespace mhmoe::cpu
