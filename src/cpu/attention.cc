#include "ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/parallel_for.h"
#include "cpu/attention_rows.h"
#include "cpu/kernels.h"
#include "cpu/product.h"
#include "cpu/scratch.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

// Queries are taken in tiles against the strip of all keys they see: at most kQueryTile x sequence_length scores exist
// a thread. One task is one head of one sequence; within it the order is fixed, so results do not depend on threads.
constexpr int64_t kQueryTile = 64;

// A row-major f32 matrix within a larger one.
struct View {
  float* data;
  int64_t ld;
  float* row(int64_t r) const { return data + r * ld; }
};

// c[m, n] = alpha op(a) op(b) + beta c, on the calling thread when in a parallel region.
void multiply(View c, View a, View b, int64_t m, int64_t n, int64_t k, char op_a, char op_b, float alpha, float beta) {
  sgemm(op_a, op_b, m, n, k, alpha, a.data, a.ld, b.data, b.ld, beta, c.data, c.ld);
}

// One head's columns of a [tokens, width] tensor, from its sequence's first token.
template <class T>
struct Head {
  T* data;
  int64_t ld;

  Head(const Tensor& tensor, int64_t first_token, int64_t first_column)
      : data(tensor.as<T>() + first_token * tensor.cols() + first_column), ld(tensor.cols()) {}
};

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

// Hands out a thread's scratch piece by piece.
class Pieces {
 public:
  Pieces(Scratch& scratch, int64_t count) : next_(scratch.floats(count)) {}
  View take(int64_t rows, int64_t cols) {
    const View view{next_, cols};
    next_ += rows * cols;
    return view;
  }

 private:
  float* next_;
};

// Heads are worked on as matrices of their own, converted and close together: products on rows three model widths
// apart are slower than the copies (backward at 1,024 tokens: by a quarter).
template <class T>
View loaded(const Head<T>& head, const Sizes& sizes, Pieces& pieces) {
  const View view = pieces.take(sizes.length, sizes.size);
  for (int64_t t = 0; t < sizes.length; ++t) load_row(view.row(t), head.data + t * head.ld, sizes.size);
  return view;
}

template <class T>
void store(const Head<T>& head, const Sizes& sizes, View view) {
  for (int64_t t = 0; t < sizes.length; ++t) store_row(head.data + t * head.ld, view.row(t), sizes.size);
}

void forward_tile(const Sizes& sizes, View out, float* log_sum_exp, View q, View k, View v, View scores,
                  int64_t first) {
  const int64_t rows = std::min(kQueryTile, sizes.length - first);
  const int64_t strip = sizes.visible(first + rows - 1);
  const View tile_out{out.row(first), out.ld};
  if (strip == 0) {
    std::fill_n(tile_out.data, rows * sizes.size, 0.0f);
    std::fill_n(log_sum_exp + first, rows, -std::numeric_limits<float>::infinity());
    return;
  }
  scores.ld = strip;
  multiply(scores, {q.row(first), q.ld}, k, rows, strip, sizes.size, 'N', 'T', sizes.scale, 0);
  float inverse_sum[kQueryTile];
  for (int64_t r = 0; r < rows; ++r) {
    float max = 0;
    const float sum = softmax_numerators(scores.row(r), sizes.visible(first + r), strip, max);
    inverse_sum[r] = 1.0f / sum;
    log_sum_exp[first + r] = max + std::log(sum);
  }
  multiply(tile_out, scores, v, rows, sizes.size, strip, 'N', 'N', 1, 0);
  for (int64_t r = 0; r < rows; ++r) {
    float* row = tile_out.row(r);
#pragma omp simd
    for (int64_t c = 0; c < sizes.size; ++c) row[c] *= inverse_sum[r];
  }
}

// scores: q k^T scaled, becomes the probabilities p; grad: grad_out v^T, becomes p * (grad - delta).
void score_gradients(float* scores, float* grad, int64_t visible, int64_t strip, float log_sum_exp, float delta) {
#pragma omp simd
  for (int64_t i = 0; i < visible; ++i) {
    scores[i] = fast_exp(scores[i] - log_sum_exp);
    grad[i] = scores[i] * (grad[i] - delta);
  }
  std::fill(scores + visible, scores + strip, 0.0f);
  std::fill(grad + visible, grad + strip, 0.0f);
}

struct BackwardViews {
  View q, k, v, out, grad_out;
  View grad_q, grad_k, grad_v;
  View scores, grad_scores;
  const float* log_sum_exp;
};

void backward_tile(const Sizes& sizes, BackwardViews views, int64_t first) {
  const int64_t rows = std::min(kQueryTile, sizes.length - first), size = sizes.size;
  const int64_t strip = sizes.visible(first + rows - 1);
  const View q{views.q.row(first), views.q.ld}, grad_out{views.grad_out.row(first), views.grad_out.ld};
  const View grad_q{views.grad_q.row(first), views.grad_q.ld};
  if (strip == 0) {
    std::fill_n(grad_q.data, rows * size, 0.0f);
    return;
  }
  View scores = views.scores, grad = views.grad_scores;
  scores.ld = grad.ld = strip;
  multiply(scores, q, views.k, rows, strip, size, 'N', 'T', sizes.scale, 0);
  multiply(grad, grad_out, views.v, rows, strip, size, 'N', 'T', 1, 0);
  for (int64_t r = 0; r < rows; ++r) {
    // delta = sum_j p_j (grad_out . v_j) = grad_out . out
    const float delta = dot(grad_out.row(r), views.out.row(first + r), size);
    score_gradients(scores.row(r), grad.row(r), sizes.visible(first + r), strip, views.log_sum_exp[first + r], delta);
  }
  multiply(grad_q, grad, views.k, rows, size, strip, 'N', 'N', sizes.scale, 0);
  multiply(views.grad_k, grad, q, strip, size, rows, 'T', 'N', sizes.scale, 1);
  multiply(views.grad_v, scores, grad_out, strip, size, rows, 'T', 'N', 1, 1);
}

template <class T>
void forward_head(const ops::AttentionForward& args, const Sizes& sizes, int64_t sequence, int64_t head) {
  thread_local Scratch scratch;
  Pieces pieces(scratch, (4 * sizes.size + kQueryTile) * sizes.length);
  const int64_t width = sizes.heads * sizes.size, token = sequence * sizes.length, column = head * sizes.size;
  const Head<T> out_head(args.out, token, column);
  const View q = loaded(Head<T>(args.qkv, token, column), sizes, pieces);
  const View k = loaded(Head<T>(args.qkv, token, width + column), sizes, pieces);
  const View v = loaded(Head<T>(args.qkv, token, 2 * width + column), sizes, pieces);
  const View out = pieces.take(sizes.length, sizes.size);
  const View scores = pieces.take(kQueryTile, sizes.length);
  float* log_sum_exp = args.log_sum_exp.as<float>() + (sequence * sizes.heads + head) * sizes.length;
  for (int64_t first = 0; first < sizes.length; first += kQueryTile) {
    forward_tile(sizes, out, log_sum_exp, q, k, v, scores, first);
  }
  store(out_head, sizes, out);
}

template <class T>
void backward_head(const ops::AttentionBackward& args, const Sizes& sizes, int64_t sequence, int64_t head) {
  thread_local Scratch scratch;
  Pieces pieces(scratch, (8 * sizes.size + 2 * kQueryTile) * sizes.length);
  const int64_t width = sizes.heads * sizes.size, token = sequence * sizes.length, column = head * sizes.size;
  const Head<T> grad_q_head(args.grad_qkv, token, column), grad_k_head(args.grad_qkv, token, width + column),
      grad_v_head(args.grad_qkv, token, 2 * width + column);
  const BackwardViews views = {
      .q = loaded(Head<T>(args.qkv, token, column), sizes, pieces),
      .k = loaded(Head<T>(args.qkv, token, width + column), sizes, pieces),
      .v = loaded(Head<T>(args.qkv, token, 2 * width + column), sizes, pieces),
      .out = loaded(Head<T>(args.out, token, column), sizes, pieces),
      .grad_out = loaded(Head<T>(args.grad_out, token, column), sizes, pieces),
      .grad_q = pieces.take(sizes.length, sizes.size),
      .grad_k = pieces.take(sizes.length, sizes.size),
      .grad_v = pieces.take(sizes.length, sizes.size),
      .scores = pieces.take(kQueryTile, sizes.length),
      .grad_scores = pieces.take(kQueryTile, sizes.length),
      .log_sum_exp = args.log_sum_exp.as<const float>() + (sequence * sizes.heads + head) * sizes.length,
  };
  for (const View& sum : {views.grad_k, views.grad_v}) std::fill_n(sum.data, sizes.length * sizes.size, 0.0f);
  for (int64_t first = 0; first < sizes.length; first += kQueryTile) backward_tile(sizes, views, first);
  store(grad_q_head, sizes, views.grad_q);
  store(grad_k_head, sizes, views.grad_k);
  store(grad_v_head, sizes, views.grad_v);
}

}  // namespace

void attention_forward(Context& /*ctx*/, const ops::AttentionForward& args) {
  const int64_t heads = args.shape.heads;
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    parallel_tasks(args.shape.batch * heads, [&](int64_t task, int /*thread*/) {
      forward_head<decltype(zero)>(args, Sizes(args, task / heads), task / heads, task % heads);
    });
  });
}

void attention_backward(Context& /*ctx*/, const ops::AttentionBackward& args) {
  const int64_t heads = args.shape.heads;
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    parallel_tasks(args.shape.batch * heads, [&](int64_t task, int /*thread*/) {
      backward_head<decltype(zero)>(args, Sizes(args, task / heads), task / heads, task % heads);
    });
  });
}

}  // namespace mhmoe::cpu
