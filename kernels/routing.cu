#include "ops/routing.h"

#include "kernels/gather.cuh"
#include "kernels/kernels.h"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 8;
constexpr int kBatch = 4;  // rows asked for before the first is used

struct Addend {
  const void* data;  // may be null
  bool bf16;
};

template <int kWidth>
__device__ Floats<kWidth> load_addend(const Addend& addend, int64_t at) {
  return addend.bf16 ? load<kWidth>(static_cast<const __nv_bfloat16*>(addend.data) + at)
                     : load<kWidth>(static_cast<const float*>(addend.data) + at);
}

struct Choices {
  const int32_t* row_of;
  const float* gate;  // may be null
  int64_t k;
};

// sum += the choices' rows in order; returns whether there was one. begin: the first of at most kBatch choices.
template <int kWidth, class Row>
__device__ bool add_batch(Floats<kWidth>& sum, const Choices& choices, const Row* rows, int64_t begin, int64_t cols) {
  Floats<kWidth> values[kBatch];
  int32_t row[kBatch];
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    row[i] = begin + i < choices.k ? choices.row_of[begin + i] : -1;
    if (row[i] >= 0) values[i] = load<kWidth>(rows + row[i] * cols);
  }
  bool any = false;
#pragma unroll
  for (int i = 0; i < kBatch; ++i) {
    if (row[i] < 0) continue;
    const float gate = choices.gate == nullptr ? 1.0f : choices.gate[begin + i];
    for (int c = 0; c < kWidth; ++c) sum[c] += gate * values[i][c];
    any = true;
  }
  return any;
}

template <int kWidth, class Y, class Row>
__global__ void combine_kernel(Y* y, const Row* rows, Choices choices, Addend addend, int64_t count, int64_t cols,
                               RowLanes part) {
  const int64_t s = part.row();
  if (s >= count) return;
  choices.row_of += s * choices.k;
  if (choices.gate != nullptr) choices.gate += s * choices.k;
  for (int64_t c = int64_t{part.lane()} * kWidth; c < cols; c += int64_t{part.lanes()} * kWidth) {
    Floats<kWidth> sum;
    bool any = addend.data != nullptr;
    if (any) {
      sum = load_addend<kWidth>(addend, s * cols + c);
    } else {
      for (int i = 0; i < kWidth; ++i) sum[i] = -0.0f;  // adding to it leaves every number as it is, -0 too
    }
    for (int64_t j = 0; j < choices.k; j += kBatch) any |= add_batch<kWidth>(sum, choices, rows + c, j, cols);
    if (!any) sum = {};
    store<kWidth>(y + s * cols + c, sum);
  }
}

}  // namespace

void gather_rows(Context& ctx, const ops::GatherRows& args) {
  if (args.x.dtype == DType::kBF16)
    return gather<bfloat16, bfloat16>(ctx, args.out, args.x, args.row_assignment, args.k);
  dispatch_float(args.out.dtype,
                 [&](auto zero) { gather<decltype(zero), float>(ctx, args.out, args.x, args.row_assignment, args.k); });
}

void combine_rows(Context& ctx, const ops::CombineRows& args) {
  const int64_t count = args.y.rows(), cols = args.y.cols();
  const Choices choices = {elements<const int32_t>(args.row_of), elements<const float>(args.gate), args.row_of.cols()};
  const Addend addend = {args.addend.data, args.addend.dtype == DType::kBF16};
  dispatch_float(args.y.dtype, [&](auto y_zero) {
    dispatch_float(args.rows.dtype, [&](auto row_zero) {
      using Y = decltype(y_zero);
      using Row = decltype(row_zero);
      dispatch_width<kPack>(cols, {args.y, args.rows, args.addend}, [&](auto width) {
        const RowLanes part(cols, width(), kThreads);
        launch({.grid = block_count(count, part.rows_per_block(kThreads)), .block = kThreads, .stream = stream_of(ctx)},
               combine_kernel<width(), typename DeviceElement<Y>::Type, typename DeviceElement<Row>::Type>,
               elements<Y>(args.y), elements<const Row>(args.rows), choices, addend, count, cols, part);
      });
    });
  });
}

}  // namespace mhmoe::cuda
