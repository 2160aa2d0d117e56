#include "ops/embedding.h"

#include "kernels/gather.cuh"
#include "kernels/kernels.h"

// Backward: rows of equal token must be added in order of n, without atomics. Tokens fall into buckets, and the queues
// of assign_slots, with buckets for experts, list each bucket's rows in order of n. One block then walks a bucket, so
// that no two blocks add to one row of the table; a bucket that is walked in order has the rows of each of its tokens
// in order.
namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 4;
constexpr int64_t kBuckets = 4096;  // of several tokens each where the vocabulary is larger
constexpr int kBatch = 16;          // rows asked for before the first is added
constexpr int kStage = 64;          // rows whose indices a block keeps at a time
constexpr int kColumnThreads = 64;

__global__ void bucket_kernel(int32_t* bucket, const int32_t* tokens, int64_t count, int32_t buckets) {
  const int64_t n = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (n < count) bucket[n] = tokens[n] % buckets;
}

// Rows in order, of which those of bucket b are rows[begin[b]] to rows[begin[b] + count[b] - 1].
struct BucketLists {
  const int32_t *rows, *begin, *count;
};

// A running sum of one row of the table, kWidth columns of it, that is written when another row is needed.
template <int kWidth>
struct OpenRow {
  float* table;  // at this thread's column
  int64_t cols;
  int32_t token = -1;
  Floats<kWidth> sum = {};

  __device__ void close() {
    if (token >= 0) store<kWidth>(table + token * cols, sum);
  }
  __device__ void add(int32_t next, const Floats<kWidth>& values) {
    if (next != token) {
      close();
      token = next;
      sum = load<kWidth>(table + token * cols);
    }
    for (int i = 0; i < kWidth; ++i) sum[i] += values[i];
  }
};

// The first kBatch of `count` rows, in order.
template <int kWidth>
__device__ void add_batch(OpenRow<kWidth>& open, const float* grad_out, const int32_t* row, const int32_t* token,
                          int count) {
  Floats<kWidth> values[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (i < count) values[i] = load<kWidth>(grad_out + row[i] * open.cols);
  }
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (i < count) open.add(token[i], values[i]);
  }
}

// One block a bucket and slice of the columns, kWidth columns a thread.
template <int kWidth>
__global__ void add_buckets_kernel(float* grad_table, const float* grad_out, const int32_t* tokens, BucketLists lists,
                                   int64_t cols) {
  __shared__ int32_t row[kStage], token[kStage];
  const int64_t c = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * kWidth;
  const int32_t* rows = lists.rows + lists.begin[blockIdx.x];
  const int32_t count = lists.count[blockIdx.x];
  OpenRow<kWidth> open = {grad_table + c, cols};
  for (int32_t first = 0; first < count; first += kStage) {
    const int staged = count - first < kStage ? count - first : kStage;
    __syncthreads();  // everybody is done with the rows before
    for (int i = static_cast<int>(threadIdx.x); i < staged; i += static_cast<int>(blockDim.x)) {
      row[i] = rows[first + i];
      token[i] = tokens[row[i]];
    }
    __syncthreads();
    if (c >= cols) continue;
    for (int batch = 0; batch < staged; batch += kBatch) {
      add_batch<kWidth>(open, grad_out + c, row + batch, token + batch, staged - batch);
    }
  }
  if (c < cols) open.close();
}

// Queues whose experts are buckets, all in i32.
ops::AssignSlots allocate_queues(Context& ctx, const ops::EmbeddingBackward& args) {
  const int64_t rows = args.tokens.count(), buckets = std::min(args.grad_table.rows(), kBuckets);
  const auto allocate = [&](std::initializer_list<int64_t> dims) {
    return ctx.step().allocate("embedding_backward_buckets", DType::kI32, dims);
  };
  return {.slot = allocate({rows, 1}),
          .row_of = allocate({rows, 1}),
          .row_assignment = allocate({rows}),
          .begin = allocate({buckets}),
          .rows = allocate({buckets}),
          .load = allocate({buckets}),
          .expert_index = allocate({rows, 1}),
          .capacity = 0};
}

}  // namespace

void embedding_forward(Context& ctx, const ops::EmbeddingForward& args) {
  dispatch_float(args.table.dtype,
                 [&](auto zero) { gather<float, decltype(zero)>(ctx, args.out, args.table, args.tokens, 1); });
}

void embedding_backward_scratch(Context& ctx, const ops::EmbeddingBackward& args) {
  assign_slots_scratch(ctx, allocate_queues(ctx, args));
}

void embedding_backward(Context& ctx, const ops::EmbeddingBackward& args) {
  const int64_t cols = args.grad_table.cols(), count = args.tokens.count();
  const ArenaScope scope(ctx.step());
  const ops::AssignSlots queues = allocate_queues(ctx, args);
  const int64_t buckets = queues.load.count();
  const auto* tokens = elements<const int32_t>(args.tokens);
  launch({.grid = block_count(count, kThreads), .block = kThreads, .stream = stream_of(ctx)}, bucket_kernel,
         elements<int32_t>(queues.expert_index), tokens, count, buckets);
  cuda::assign_slots(ctx, queues);
  const BucketLists lists = {elements<const int32_t>(queues.row_assignment), elements<const int32_t>(queues.begin),
                             elements<const int32_t>(queues.rows)};
  dispatch_width<kPack>(cols, {args.grad_table, args.grad_out}, [&](auto width) {
    launch({.grid = dim3(static_cast<unsigned>(buckets), block_count(cols, kColumnThreads * width())),
            .block = kColumnThreads,
            .stream = stream_of(ctx)},
           add_buckets_kernel<width()>, elements<float>(args.grad_table), elements<const float>(args.grad_out), tokens,
           lists, cols);
  });
}

}  // namespace mhmoe::cuda
