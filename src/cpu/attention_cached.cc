#include <cmath>
#include <type_traits>

#include "core/parallel_for.h"
#include "cpu/attention_rows.h"
#include "cpu/kernels.h"
#include "cpu/scratch.h"
#include "ops/attention.h"

namespace mhmoe::cpu {
namespace {

// One task is one head of one sequence. Queries are taken one by one, with sums over keys in order, so that a row's
// bits depend on nothing but its position: matrix products, faster for many queries, do not grant that on every CPU.
template <class T>
class CachedHead {
 public:
  CachedHead(const ops::AttentionCached& args, int64_t sequence, int64_t head)
      : first_(args.first_position),
        length_(args.shape.sequence_length),
        size_(args.shape.head_size),
        width_(args.shape.heads * size_),
        scale_(1.0f / std::sqrt(static_cast<float>(size_))) {
    const int64_t token = sequence * length_, column = head * size_;
    const int64_t cached = (sequence * args.shape.heads + head) * args.keys.dims[2] * size_;
    qkv_ = args.qkv.as<const T>() + token * 3 * width_ + column;
    out_ = args.out.as<T>() + token * width_ + column;
    keys_ = args.keys.as<T>() + cached;
    values_ = args.values.as<T>() + cached;
  }

  void run() const {
    thread_local Scratch key_scratch, value_scratch, row_scratch;
    append();
    const int64_t positions = first_ + length_;
    const float* keys = in_f32(keys_, positions * size_, key_scratch);
    const float* values = in_f32(values_, positions * size_, value_scratch);
    float* query = row_scratch.floats(2 * size_ + whole_steps(positions));
    float *sum = query + size_, *scores = sum + size_;
    for (int64_t i = 0; i < length_; ++i) {
      load_row(query, qkv_ + i * 3 * width_, size_);
      attend(sum, scores, query, keys, values, first_ + i + 1);
      store_row(out_ + i * width_, sum, size_);
    }
  }

 private:
  static const float* in_f32(const T* rows, int64_t count, Scratch& scratch) {
    if constexpr (std::is_same_v<T, float>) {
      return rows;
    } else {
      float* converted = scratch.floats(count);
      load_row(converted, rows, count);
      return converted;
    }
  }

  void append() const {
    for (int64_t i = 0; i < length_; ++i) {
      const T* key = qkv_ + i * 3 * width_ + width_;
      std::copy_n(key, size_, keys_ + (first_ + i) * size_);
      std::copy_n(key + width_, size_, values_ + (first_ + i) * size_);
    }
  }

  void attend(float* sum, float* scores, const float* query, const float* keys, const float* values,
              int64_t visible) const {
    for (int64_t j = 0; j < visible; ++j) scores[j] = dot(query, keys + j * size_, size_);
    float max = 0;
    const float inverse_sum = 1.0f / softmax_numerators(scores, scale_, visible, visible, max);
    std::fill_n(sum, size_, 0.0f);
    for (int64_t j = 0; j < visible; ++j) {
      const float* value = values + j * size_;
#pragma omp simd
      for (int64_t c = 0; c < size_; ++c) sum[c] += scores[j] * value[c];
    }
#pragma omp simd
    for (int64_t c = 0; c < size_; ++c) sum[c] *= inverse_sum;
  }

  int64_t first_, length_, size_, width_;
  float scale_;
  const T* qkv_;
  T *out_, *keys_, *values_;
};

}  // namespace

void attention_cached(Context& /*ctx*/, const ops::AttentionCached& args) {
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    parallel_tasks(args.shape.batch * args.shape.heads, [&](int64_t task, int /*thread*/) {
      CachedHead<decltype(zero)>(args, task / args.shape.heads, task % args.shape.heads).run();
    });
  });
}

}  // namespace mhmoe::cpu
