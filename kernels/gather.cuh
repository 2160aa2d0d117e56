// Rows of one matrix by a list of indices: of token order into expert order, of a table into token order.
#pragma once

#include "kernels/row_lanes.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {

constexpr int kGatherThreads = 256;
constexpr int kGatherPack = 8;

// out[r] = x[index[r] / k], zero where index[r] is -1. cols: of both.
template <int kWidth, class Out, class In>
__global__ void gather_kernel(Out* out, const In* x, const int32_t* index, int64_t rows, int64_t cols, uint32_t k,
                              RowLanes part) {
  const int64_t row = part.row();
  if (row >= rows) return;
  const int32_t from = index[row];
  out += row * cols;
  x += from < 0 ? 0 : static_cast<int64_t>(static_cast<uint32_t>(from) / k) * cols;
  for (int64_t c = int64_t{part.lane()} * kWidth; c < cols; c += int64_t{part.lanes()} * kWidth) {
    Floats<kWidth> values = {};
    if (from >= 0) values = load<kWidth>(x + c);
    store<kWidth>(out + c, values);
  }
}

template <class Out, class In>
void gather(Context& ctx, const Tensor& out, const Tensor& x, const Tensor& index, int64_t k) {
  const int64_t rows = out.rows(), cols = out.cols();
  dispatch_width<kGatherPack>(cols, {out, x}, [&](auto width) {
    const RowLanes part(cols, width(), kGatherThreads);
    launch({.grid = block_count(rows, part.rows_per_block(kGatherThreads)),
            .block = kGatherThreads,
            .stream = stream_of(ctx)},
           gather_kernel<width(), typename DeviceElement<Out>::Type, typename DeviceElement<In>::Type>,
           elements<Out>(out), elements<const In>(x), elements<const int32_t>(index), rows, cols, k, part);
  });
}

}  // namespace mhmoe::cuda
