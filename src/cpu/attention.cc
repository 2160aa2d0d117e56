#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel_for.h"
#include "cpu/attention_head.h"
#include "cpu/attention_rows.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"
#include "cpu/tiles.h"

namespace mhmoe::cpu {
namespace {

// Queries are taken in tiles against the strip of all keys they see: at most kQueryTile x sequence_length scores exist
// a thread. One task is one head of one sequence; within it the order is fixed, so results do not depend on threads.
constexpr int64_t kQueryTile = 64;

// Neighbouring queries of a head.
struct QueryTile {
  QueryTile(const Sizes& sizes, int64_t first_query)
      : first(first_query),
        rows(std::min(kQueryTile, sizes.length - first)),
        visible(sizes.visible(first + rows - 1)) {}
  int64_t first, rows;
  int64_t visible;  // keys that the last of them sees, and no other more
};

// Scratch of a thread for a strip; the name of each is what it holds.
struct StripRooms {
  Scratch queries, scores, rounded;
};

// Scores of a tile of queries against all keys, zero where a query does not see a key; and the same as left operands,
// which pairs are rounded for.
template <class T>
struct Strip {
  Strip(StripRooms& rooms, const Sizes& sizes, const QueryTile& tile)
      : rows(tile.rows),
        visible(tile.visible),
        width(kPaired<T> ? (visible + 1) / 2 * 2 : visible),
        ld(whole_steps(sizes.length)),
        scores(rooms.scores.floats(kQueryTile * ld)) {
    if constexpr (kPaired<T>) {
      rounded = static_cast<T*>(rooms.rounded.bytes(static_cast<size_t>(kQueryTile * ld) * sizeof(T)));
    }
  }
  float* row(int64_t r) const { return scores + r * ld; }
  void finish_row(int64_t r) const {
    if constexpr (kPaired<T>) store_row(rounded + r * ld, row(r), width);
  }
  // [rows, width], and the transpose of [rows, visible].
  Left<T> left(Scratch& room) const {
    if constexpr (kPaired<T>) {
      return left_operand<T>(room, {rounded, ld}, rows, width);
    } else {
      return {scores, ld, 1};
    }
  }
  Left<T> transposed(Scratch& room) const {
    if constexpr (kPaired<T>) {
      return left_operand<T>(room, {rounded, ld, true}, visible, rows);
    } else {
      const Left<float> floats = left_operand<float>(room, {scores, ld, true}, visible, rows);
      return {floats.data, floats.row, floats.inner};
    }
  }

  int64_t rows, visible;
  // What is multiplied along the keys: whole pairs, of which the last key may be one that no query of the tile sees;
  // beyond the keys that any query sees operands are filled up with zeros.
  int64_t width;
  int64_t ld;
  float* scores;
  T* rounded = nullptr;
};

// The strip of a tile of `queries`, [tokens, size], and keys, [size, tokens]: their products.
template <class T>
Strip<T> multiply_strip(StripRooms& rooms, const Sizes& sizes, const QueryTile& tile, const Head<T>& queries,
                        Right<T> keys) {
  const Strip<T> strip(rooms, sizes, tile);
  const Left<T> left = left_operand(rooms.queries, queries.from(tile.first), tile.rows, sizes.size);
  multiply<T, float>({strip.scores, strip.ld}, left, keys, tile.rows, tile.visible, sizes.size);
  return strip;
}

void scale_row(float* row, float scale, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) row[i] *= scale;
}

template <class T>
struct ForwardHead {
  Qkv<T> in;
  Head<T> out;
  float* log_sum_exp;
};

// Scratch of a thread; the name of each is what it holds.
struct Rooms {
  StripRooms scores, grads;
  Scratch key, value, key_rows, out, left, right;
  Scratch grad_key, grad_value;
};

template <class T>
void forward_tile(Rooms& rooms, const Sizes& sizes, const ForwardHead<T>& head, Right<T> keys, Right<T> values,
                  const QueryTile& tile) {
  const int64_t first = tile.first, rows = tile.rows, size = sizes.size;
  if (tile.visible == 0) {
    for (int64_t r = 0; r < rows; ++r) std::fill_n(head.out.row(first + r), size, T{});
    std::fill_n(head.log_sum_exp + first, rows, -std::numeric_limits<float>::infinity());
    return;
  }
  const Strip<T> strip = multiply_strip(rooms.scores, sizes, tile, head.in.q, keys);
  float inverse_sum[kQueryTile];
  for (int64_t r = 0; r < rows; ++r) {
    float max = 0;
    const float sum = softmax_numerators(strip.row(r), sizes.scale, sizes.visible(first + r), strip.width, max);
    inverse_sum[r] = 1.0f / sum;
    head.log_sum_exp[first + r] = max + std::log(sum);
    strip.finish_row(r);
  }
  float* out = rooms.out.floats(kQueryTile * size);
  multiply<T, float>({out, size}, strip.left(rooms.left), values, rows, size, strip.width);
  for (int64_t r = 0; r < rows; ++r) {
    scale_row(out + r * size, inverse_sum[r], size);
    store_row(head.out.row(first + r), out + r * size, size);
  }
}

template <class T>
struct BackwardHead {
  Qkv<T> in;
  Head<T> out, grad_out;
  Qkv<T> grad;
  const float* log_sum_exp;
};

// What all query tiles of a head share: its keys and values as operands, and the sums of their gradients.
template <class T>
struct KeysAndValues {
  Right<T> keys, key_rows, values;
  float *grad_k, *grad_v;
};

// scores: q k^T, becomes the probabilities p; grad: grad_out v^T, becomes scale * p * (grad - delta).
void score_gradients(float* scores, float* grad, int64_t visible, int64_t strip, float scale, float log_sum_exp,
                     float delta) {
  const int64_t count = whole_steps(visible);
  std::fill(scores + visible, scores + count, 0.0f);
  std::fill(grad + visible, grad + count, 0.0f);
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    scores[i] = fast_exp(scores[i] * scale - log_sum_exp);
    grad[i] = scores[i] * (grad[i] - delta) * scale;
  }
  std::fill(scores + visible, scores + strip, 0.0f);
  std::fill(grad + visible, grad + strip, 0.0f);
}

// delta = sum_j p_j (grad_out . v_j) = grad_out . out
template <class T>
float delta_of(const T* grad_out, const T* out, int64_t size) {
  return chained_sum(size, [&](int64_t c) { return static_cast<float>(grad_out[c]) * static_cast<float>(out[c]); });
}

template <class T>
void backward_tile(Rooms& rooms, const Sizes& sizes, const BackwardHead<T>& head, const KeysAndValues<T>& shared,
                   const QueryTile& tile) {
  const int64_t first = tile.first, rows = tile.rows, size = sizes.size;
  if (tile.visible == 0) {
    for (int64_t r = 0; r < rows; ++r) std::fill_n(head.grad.q.row(first + r), size, T{});
    return;
  }
  const Strip<T> strip = multiply_strip(rooms.scores, sizes, tile, head.in.q, shared.keys);
  const Strip<T> grads = multiply_strip(rooms.grads, sizes, tile, head.grad_out, shared.values);
  for (int64_t r = 0; r < rows; ++r) {
    const float delta = delta_of(head.grad_out.row(first + r), head.out.row(first + r), size);
    score_gradients(strip.row(r), grads.row(r), sizes.visible(first + r), strip.width, sizes.scale,
                    head.log_sum_exp[first + r], delta);
    strip.finish_row(r);
    grads.finish_row(r);
  }
  multiply<T, T>({head.grad.q.row(first), head.grad.q.ld}, grads.left(rooms.left), shared.key_rows, rows, size,
                 grads.width);
  const auto add_product = [&](float* out, const Strip<T>& left, const Stored<T>& right) {
    multiply<T, float>({.data = out, .ld = size, .add = true}, left.transposed(rooms.left),
                       right_operand(rooms.right, right, rows, size), tile.visible, size, rows);
  };
  add_product(shared.grad_k, grads, head.in.q.from(first));
  add_product(shared.grad_v, strip, head.grad_out.from(first));
}

template <class T>
void forward_head(const ops::AttentionForward& args, const Sizes& sizes, const Place& at) {
  thread_local Rooms rooms;
  const ForwardHead<T> head = {.in = Qkv<T>(args.qkv, at),
                               .out = Head<T>(args.out, at.token, at.column),
                               .log_sum_exp = args.log_sum_exp.as<float>() + at.row};
  const Right<T> keys = right_operand(rooms.key, head.in.k.transposed(), sizes.size, sizes.keys);
  const Right<T> values = right_operand(rooms.value, head.in.v.from(0), sizes.keys, sizes.size);
  for (int64_t first = 0; first < sizes.length; first += kQueryTile) {
    forward_tile(rooms, sizes, head, keys, values, QueryTile(sizes, first));
  }
}

template <class T>
void backward_head(const ops::AttentionBackward& args, const Sizes& sizes, const Place& at) {
  thread_local Rooms rooms;
  const BackwardHead<T> head = {.in = Qkv<T>(args.qkv, at),
                                .out = Head<T>(args.out, at.token, at.column),
                                .grad_out = Head<T>(args.grad_out, at.token, at.column),
                                .grad = Qkv<T>(args.grad_qkv, at),
                                .log_sum_exp = args.log_sum_exp.as<const float>() + at.row};
  const auto& [q, k, v] = head.in;
  const int64_t sums = sizes.length * sizes.size;
  const KeysAndValues<T> shared = {.keys = right_operand(rooms.key, k.transposed(), sizes.size, sizes.keys),
                                   .key_rows = right_operand(rooms.key_rows, k.from(0), sizes.keys, sizes.size),
                                   .values = right_operand(rooms.value, v.transposed(), sizes.size, sizes.keys),
                                   .grad_k = rooms.grad_key.floats(sums),
                                   .grad_v = rooms.grad_value.floats(sums)};
  for (float* sum : {shared.grad_k, shared.grad_v}) std::fill_n(sum, sums, 0.0f);
  for (int64_t first = 0; first < sizes.length; first += kQueryTile) {
    backward_tile(rooms, sizes, head, shared, QueryTile(sizes, first));
  }
  for (int64_t t = 0; t < sizes.length; ++t) {
    store_row(head.grad.k.row(t), shared.grad_k + t * sizes.size, sizes.size);
    store_row(head.grad.v.row(t), shared.grad_v + t * sizes.size, sizes.size);
  }
}

// body(sizes, place) for every head of every sequence.
template <class Args, class Body>
void parallel_heads(const Args& args, Body body) {
  const int64_t heads = args.shape.heads;
  parallel_tasks(args.shape.batch * heads, [&](int64_t task, int /*thread*/) {
    const Sizes sizes(args, task / heads);
    body(sizes, Place(sizes, task / heads, task % heads));
  });
}

}  // namespace

void attention_forward(Context& /*ctx*/, const ops::AttentionForward& args) {
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    parallel_heads(args, [&](const Sizes& sizes, const Place& at) { forward_head<decltype(zero)>(args, sizes, at); });
  });
}

void attention_backward(Context& /*ctx*/, const ops::AttentionBackward& args) {
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    parallel_heads(args, [&](const Sizes& sizes, const Place& at) { backward_head<decltype(zero)>(args, sizes, at); });
  });
}

}  // namespace mhmoe::cpu
