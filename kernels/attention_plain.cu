#include "kernels/attention.cuh"
#include "kernels/kernels.h"
#include "kernels/reduce.cuh"

// Attention for any head size, f32 and bf16, and the judge of the kernels on tensor cores: one warp a row of one head,
// 32 rows of the other side at a time. For their scores every lane takes one of them, for sums over them a lane takes
// columns. Backward computes probabilities anew from log_sum_exp: nothing of size length x length exists.
namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarpSize;

// A warp's part of the block's dynamic shared memory: rows of head_size and of kWarpSize floats.
class WarpRows {
 public:
  static size_t bytes(int head_size, int rows, int lane_rows) {
    return sizeof(float) * kWarps * (static_cast<size_t>(rows) * head_size + lane_rows * kWarpSize);
  }

  __device__ WarpRows(int head_size, int rows, int lane_rows)
      : next_(dynamic_shared<float>() + threadIdx.x / kWarpSize * (rows * head_size + lane_rows * kWarpSize)) {}
  __device__ float* take(int count) {
    float* const row = next_;
    next_ += count;
    return row;
  }

 private:
  float* next_;
};

__device__ int lane() {
  return static_cast<int>(threadIdx.x) % kWarpSize;
}
// The row of a head that is this warp's: [batch, heads, length].
__device__ int64_t row_number() {
  return int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarpSize;
}

template <class T>
__device__ void load_row(float* row, const T* source, int size) {
  for (int c = lane(); c < size; c += kWarpSize) row[c] = to_float(source[c]);
}
__device__ void zero_row(float* row, int size) {
  for (int c = lane(); c < size; c += kWarpSize) row[c] = 0;
}
template <class T>
__device__ void store_row(T* target, const float* row, int size, float factor) {
  for (int c = lane(); c < size; c += kWarpSize) target[c] = from_float<T>(row[c] * factor);
}

template <class T>
__device__ float dot(const float* a, const T* b, int size) {
  float sum = 0;
  for (int c = 0; c < size; ++c) sum += a[c] * to_float(b[c]);
  return sum;
}

// sum = sum * factor + weights[0, count) rows[first, first + count)
template <class T>
__device__ void add_weighted(float* sum, float factor, const float* weights, Rows<T> rows, int first, int count,
                             int size) {
  for (int c = lane(); c < size; c += kWarpSize) {
    float total = sum[c] * factor;
    for (int j = 0; j < count; ++j) total += weights[j] * to_float(rows.row(first + j)[c]);
    sum[c] = total;
  }
}

__device__ int rows_at(int first, int end) {
  return end - first < kWarpSize ? end - first : kWarpSize;
}

// out = softmax(scale query . keys) values over the first `visible` keys; returns the log-sum-exp. The bits depend on
// these rows alone.
constexpr int kAttendRows = 2, kAttendLaneRows = 1;
template <class T>
__device__ float attend(T* out, const T* query, Rows<const T> keys, Rows<const T> values, int visible, int size,
                        float scale) {
  WarpRows memory(size, kAttendRows, kAttendLaneRows);
  float *const q = memory.take(size), *const sum = memory.take(size), *const weights = memory.take(kWarpSize);
  load_row(q, query, size);
  zero_row(sum, size);
  __syncwarp();
  float largest = -INFINITY, total = 0;
  for (int first = 0; first < visible; first += kWarpSize) {
    const int key = first + lane();
    const float score = key < visible ? scale * dot(q, keys.row(key), size) : -INFINITY;
    const float before = largest;
    largest = fmaxf(before, warp_max(score));
    const float factor = expf(before - largest), weight = expf(score - largest);
    total = total * factor + warp_sum(weight);
    weights[lane()] = weight;
    __syncwarp();
    add_weighted(sum, factor, weights, values, first, rows_at(first, visible), size);
    __syncwarp();  // the weights' readers are done
  }
  store_row(out, sum, size, visible == 0 ? 0.0f : 1.0f / total);
  return visible == 0 ? -INFINITY : largest + logf(total);
}

template <class T>
__global__ void plain_forward_kernel(T* out, float* log_sum_exp, const T* qkv, AttentionSizes sizes) {
  const int64_t number = row_number(), head = number / sizes.length;
  if (head >= sizes.head_count()) return;
  const int row = static_cast<int>(number % sizes.length);
  const float result =
      attend(sizes.rows(out, head, 1, 0).row(row), sizes.rows(qkv, head, 3, 0).row(row), sizes.rows(qkv, head, 3, 1),
             sizes.rows(qkv, head, 3, 2), sizes.visible_keys(head).of(row), sizes.head_size, sizes.scale);
  if (lane() == 0) log_sum_exp[number] = result;
}

// One warp a query: grad_q = scale sum_j ds_j k_j with ds = p (grad_out . v - delta).
template <class T>
__global__ void plain_grad_query_kernel(T* grad_qkv, const T* grad_out, const T* qkv, const float* log_sum_exp,
                                        const float* delta, AttentionSizes sizes) {
  const int64_t number = row_number(), head = number / sizes.length;
  if (head >= sizes.head_count()) return;
  const int row = static_cast<int>(number % sizes.length), size = sizes.head_size;
  WarpRows memory(size, 3, 1);
  float *const q = memory.take(size), *const grad = memory.take(size), *const sum = memory.take(size);
  float* const weights = memory.take(kWarpSize);
  load_row(q, sizes.rows(qkv, head, 3, 0).row(row), size);
  load_row(grad, sizes.rows(grad_out, head, 1, 0).row(row), size);
  zero_row(sum, size);
  __syncwarp();
  const auto keys = sizes.rows(qkv, head, 3, 1), values = sizes.rows(qkv, head, 3, 2);
  const int visible = sizes.visible_keys(head).of(row);
  for (int first = 0; first < visible; first += kWarpSize) {
    const int key = first + lane();
    if (key < visible) {
      const float p = expf(sizes.scale * dot(q, keys.row(key), size) - log_sum_exp[number]);
      weights[lane()] = p * (dot(grad, values.row(key), size) - delta[number]);
    }
    __syncwarp();
    add_weighted(sum, 1, weights, keys, first, rows_at(first, visible), size);
    __syncwarp();
  }
  store_row(sizes.rows(grad_qkv, head, 3, 0).row(row), sum, size, sizes.scale);
}

// One warp a key: grad_v = sum_i p_i grad_out_i, grad_k = scale sum_i ds_i q_i over the queries that see it, which are
// all from the first one on.
template <class T>
__global__ void plain_grad_key_kernel(T* grad_qkv, const T* grad_out, const T* qkv, const float* log_sum_exp,
                                      const float* delta, AttentionSizes sizes) {
  const int64_t number = row_number(), head = number / sizes.length;
  if (head >= sizes.head_count()) return;
  const int row = static_cast<int>(number % sizes.length), size = sizes.head_size;
  WarpRows memory(size, 4, 2);
  float *const key = memory.take(size), *const value = memory.take(size);
  float *const key_sum = memory.take(size), *const value_sum = memory.take(size);
  float *const p = memory.take(kWarpSize), *const ds = memory.take(kWarpSize);
  load_row(key, sizes.rows(qkv, head, 3, 1).row(row), size);
  load_row(value, sizes.rows(qkv, head, 3, 2).row(row), size);
  zero_row(key_sum, size);
  zero_row(value_sum, size);
  __syncwarp();
  const auto queries = sizes.rows(qkv, head, 3, 0), grads = sizes.rows(grad_out, head, 1, 0);
  const VisibleKeys visible = sizes.visible_keys(head);
  const int begin = row >= visible.keys ? sizes.length : row < visible.prefix ? 0 : row;
  for (int first = begin; first < sizes.length; first += kWarpSize) {
    const int query = first + lane();
    if (query < sizes.length) {
      const int64_t statistic = head * sizes.length + query;
      p[lane()] = expf(sizes.scale * dot(key, queries.row(query), size) - log_sum_exp[statistic]);
      ds[lane()] = p[lane()] * (dot(value, grads.row(query), size) - delta[statistic]);
    }
    __syncwarp();
    const int count = rows_at(first, sizes.length);
    add_weighted(value_sum, 1, p, grads, first, count, size);
    add_weighted(key_sum, 1, ds, queries, first, count, size);
    __syncwarp();
  }
  store_row(sizes.rows(grad_qkv, head, 3, 1).row(row), key_sum, size, sizes.scale);
  store_row(sizes.rows(grad_qkv, head, 3, 2).row(row), value_sum, size, 1);
}

// Where the kept keys and values of a head lie.
template <class T>
struct Kept {
  T *keys, *values;
  int64_t capacity, first_position;

  __device__ Rows<T> rows(T* tensor, int64_t head, int size) const { return {tensor + head * capacity * size, size}; }
};

template <class T>
__global__ void append_kernel(Kept<T> kept, const T* qkv, AttentionSizes sizes) {
  const int64_t number = row_number(), head = number / sizes.length;
  if (head >= sizes.head_count()) return;
  const int64_t row = number % sizes.length, position = kept.first_position + row;
  const T *const key = sizes.rows(qkv, head, 3, 1).row(row), *const value = sizes.rows(qkv, head, 3, 2).row(row);
  T* const kept_key = kept.rows(kept.keys, head, sizes.head_size).row(position);
  T* const kept_value = kept.rows(kept.values, head, sizes.head_size).row(position);
  for (int c = lane(); c < sizes.head_size; c += kWarpSize) {
    kept_key[c] = key[c];
    kept_value[c] = value[c];
  }
}

template <class T>
__global__ void cached_kernel(T* out, const T* qkv, Kept<const T> kept, AttentionSizes sizes) {
  const int64_t number = row_number(), head = number / sizes.length;
  if (head >= sizes.head_count()) return;
  const int64_t row = number % sizes.length;
  attend(sizes.rows(out, head, 1, 0).row(row), sizes.rows(qkv, head, 3, 0).row(row),
         kept.rows(kept.keys, head, sizes.head_size), kept.rows(kept.values, head, sizes.head_size),
         static_cast<int>(kept.first_position + row) + 1, sizes.head_size, sizes.scale);
}

LaunchConfig a_warp_a_row(Context& ctx, const AttentionSizes& sizes, int rows, int lane_rows) {
  return {.grid = block_count(sizes.head_count() * sizes.length, kWarps),
          .block = kThreads,
          .shared_bytes = WarpRows::bytes(sizes.head_size, rows, lane_rows),
          .stream = stream_of(ctx)};
}

}  // namespace

void plain_attention_forward(Context& ctx, const ops::AttentionForward& args) {
  const AttentionSizes sizes = attention_sizes(args.shape, args.prefix_lengths, args.key_lengths);
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch(a_warp_a_row(ctx, sizes, kAttendRows, kAttendLaneRows),
           plain_forward_kernel<typename DeviceElement<T>::Type>, elements<T>(args.out),
           elements<float>(args.log_sum_exp), elements<const T>(args.qkv), sizes);
  });
}

void plain_attention_backward(Context& ctx, const ops::AttentionBackward& args, const Tensor& delta) {
  const AttentionSizes sizes = attention_sizes(args.shape, args.prefix_lengths, args.key_lengths);
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    using Element = typename DeviceElement<T>::Type;
    const auto run = [&](const LaunchConfig& config, auto kernel) {
      launch(config, kernel, elements<T>(args.grad_qkv), elements<const T>(args.grad_out), elements<const T>(args.qkv),
             elements<const float>(args.log_sum_exp), elements<const float>(delta), sizes);
    };
    run(a_warp_a_row(ctx, sizes, 3, 1), plain_grad_query_kernel<Element>);
    run(a_warp_a_row(ctx, sizes, 4, 2), plain_grad_key_kernel<Element>);
  });
}

void attention_cached(Context& ctx, const ops::AttentionCached& args) {
  const AttentionSizes sizes = attention_sizes(args.shape);
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    using Element = typename DeviceElement<T>::Type;
    const int64_t capacity = args.keys.dims[2];
    const Kept<Element> kept{elements<T>(args.keys), elements<T>(args.values), capacity, args.first_position};
    launch(a_warp_a_row(ctx, sizes, 0, 0), append_kernel<Element>, kept, elements<const T>(args.qkv), sizes);
    launch(a_warp_a_row(ctx, sizes, kAttendRows, kAttendLaneRows), cached_kernel<Element>, elements<T>(args.out),
           elements<const T>(args.qkv), Kept<const Element>{kept.keys, kept.values, capacity, args.first_position},
           sizes);
  });
}

}  // namespace mhmoe::cuda
