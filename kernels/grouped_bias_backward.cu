#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
#include "kernels/row_groups.cuh"
#include "kernels/vector.cuh"
#include "ops/grouped_matmul.h"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarpSize;
constexpr int kPack = 8;
constexpr int kGateTileRows = 4 * kWarps;

// Where a buffer row's gate lies; row_assignment is null where there is one gate a row.
__device__ int64_t gate_of(const int32_t* row_assignment, int64_t row) {
  return row_assignment == nullptr ? row : row_assignment[row];
}

// A block sums up kWidth columns a lane of one expert's rows: warp w takes the rows w, w + 8, ..., and the warps' sums
// are added in their order. So a column's bits do not depend on kWidth.
template <int kWidth, class T>
__global__ void grouped_bias_grad_kernel(float* grad_bias, const T* grad_out, DeviceGroups groups, const float* gate,
                                         const int32_t* row_assignment, int64_t n) {
  __shared__ float partial[kWarps][kWidth][kWarpSize];  // a warp's lanes are neighbours: no bank conflicts
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  const int64_t col = (int64_t{blockIdx.x} * kWarpSize + lane) * kWidth;
  const int64_t begin = groups.begin[blockIdx.y], end = begin + groups.rows[blockIdx.y];
  Floats<kWidth> sums = {};
  for (int64_t r = begin + warp; r < end && col < n; r += kWarps) {
    const float scale = gate == nullptr ? 1.0f : gate[gate_of(row_assignment, r)];
    const auto grads = load<kWidth>(grad_out + r * n + col);
    for (int i = 0; i < kWidth; ++i) sums[i] += scale * grads[i];
  }
  for (int i = 0; i < kWidth; ++i) partial[warp][i][lane] = sums[i];
  __syncthreads();
  // Warp i adds up the sums of every lane's column i.
  if (warp >= kWidth || col >= n || begin == end) return;
  float sum = partial[0][warp][lane];
  for (int w = 1; w < kWarps; ++w) sum += partial[w][warp][lane];
  grad_bias[blockIdx.y * n + col + warp] += sum;
}
static_assert(kPack <= kWarps);

// One warp a row.
template <int kWidth, class T>
__global__ void grouped_gate_grad_kernel(float* grad_gate, const T* grad_out, DeviceGroups groups, const float* bias,
                                         const int32_t* row_assignment, int64_t n) {
  const RowTile tile = find_row_tile<kGateTileRows>(groups, blockIdx.x);
  const int warp = static_cast<int>(threadIdx.x) / kWarpSize, lane = static_cast<int>(threadIdx.x) % kWarpSize;
  bias += tile.expert * n;
  for (int64_t r = warp; r < tile.rows; r += kWarps) {
    const T* row = grad_out + (tile.begin + r) * n;
    float sum = 0;
    for (int64_t c = int64_t{lane} * kWidth; c < n; c += int64_t{kWarpSize} * kWidth) {
      const auto grads = load<kWidth>(row + c);
      const auto biases = load<kWidth>(bias + c);
      for (int i = 0; i < kWidth; ++i) sum += grads[i] * biases[i];
    }
    sum = warp_sum(sum);
    if (lane == 0) grad_gate[gate_of(row_assignment, tile.begin + r)] += sum;
  }
}

}  // namespace

void grouped_bias_backward(Context& ctx, const ops::GroupedBiasBackward& args) {
  const int64_t n = args.grad_out.cols(), experts = args.grad_bias.rows();
  const DeviceGroups groups = device_groups(args.groups);
  dispatch_float(args.grad_out.dtype, [&](auto zero) {
    using T = decltype(zero);
    using Element = typename DeviceElement<T>::Type;
    dispatch_width<kPack>(n, {args.grad_out}, [&](auto width) {
      launch({.grid = dim3(block_count(n, int64_t{kWarpSize} * width()), static_cast<unsigned>(experts)),
              .block = kThreads,
              .stream = stream_of(ctx)},
             grouped_bias_grad_kernel<width(), Element>, elements<float>(args.grad_bias),
             elements<const T>(args.grad_out), groups, elements<const float>(args.gate),
             elements<const int32_t>(args.row_assignment), n);
    });
    if (args.grad_gate.empty()) return;
    dispatch_width<4>(n, {args.grad_out, args.bias}, [&](auto width) {
      launch({.grid = block_count(row_tile_count<kGateTileRows>(args.groups, args.grad_out.rows()), 1),
              .block = kThreads,
              .stream = stream_of(ctx)},
             grouped_gate_grad_kernel<width(), Element>, elements<float>(args.grad_gate),
             elements<const T>(args.grad_out), groups, elements<const float>(args.bias),
             elements<const int32_t>(args.row_assignment), n);
    });
  });
}

}  // namespace mhmoe::cuda
