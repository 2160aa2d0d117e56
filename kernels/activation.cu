#include "ops/activation.h"

#include "kernels/activation.cuh"
#include "kernels/kernels.h"
#include "kernels/reduce.cuh"
#include "kernels/row_lanes.cuh"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

using ops::Activation;

constexpr int kThreads = 256;
constexpr int kRowsPerBlock = kThreads / kWarpSize;
constexpr int kPack = 8;

// f(T{}, Function{}, width): the element type, one of the structs above, and the elements to move at a time.
template <class F>
void dispatch(DType dtype, Activation kind, int64_t hidden, std::initializer_list<Tensor> tensors, F&& f) {
  dispatch_float(dtype, [&](auto zero) {
    dispatch_width<kPack>(hidden, tensors, [&](auto width) {
      switch (kind) {
        case Activation::kSwiglu:
          return f(zero, Swiglu{}, width);
        case Activation::kRelu:
          return f(zero, Relu{}, width);
        case Activation::kGelu:
          return f(zero, Gelu{}, width);
      }
    });
  });
}

// The two operands of kWidth units; of plain functions the second is not read.
template <int kWidth, class Function, class T>
__device__ Floats<kWidth> load_factor(const T* pre, int64_t hidden) {
  if constexpr (Function::kGated) return load<kWidth>(pre + hidden);
  return {};
}

template <int kWidth, class Function, class T>
__global__ void activation_forward_kernel(T* out, const T* pre, int64_t rows, int64_t hidden, RowLanes part) {
  const int64_t row = part.row();
  if (row >= rows) return;
  out += row * hidden;
  pre += row * hidden * (Function::kGated ? 2 : 1);
  for (int64_t c = int64_t{part.lane()} * kWidth; c < hidden; c += int64_t{part.lanes()} * kWidth) {
    const auto a = load<kWidth>(pre + c);
    const auto b = load_factor<kWidth, Function>(pre + c, hidden);
    Floats<kWidth> result;
    for (int i = 0; i < kWidth; ++i) result[i] = Function::unit(a[i], b[i]).out;
    store<kWidth>(out + c, result);
  }
}

template <class T>
struct BackwardRow {
  T *grad_pre, *scaled_out;  // scaled_out may be null
  const T *grad_out, *pre;
};

// Returns <out, grad_out> of kWidth units. What is written may lie where something was read: each element of the row is
// read and written by one thread.
template <int kWidth, class Function, class T>
__device__ float backward_units(const BackwardRow<T>& row, int64_t c, float scale, int64_t hidden) {
  const auto a = load<kWidth>(row.pre + c);
  const auto b = load_factor<kWidth, Function>(row.pre + c, hidden);
  const auto grad = load<kWidth>(row.grad_out + c);
  Floats<kWidth> grad_a, grad_b, scaled_out;
  float dot = 0;
  for (int i = 0; i < kWidth; ++i) {
    const Unit unit = Function::unit(a[i], b[i]);
    const float scaled = scale * grad[i];
    dot += unit.out * grad[i];
    grad_a[i] = scaled * unit.grad_a;
    grad_b[i] = scaled * unit.grad_b;
    scaled_out[i] = scale * unit.out;
  }
  store<kWidth>(row.grad_pre + c, grad_a);
  if constexpr (Function::kGated) store<kWidth>(row.grad_pre + hidden + c, grad_b);
  if (row.scaled_out != nullptr) store<kWidth>(row.scaled_out + c, scaled_out);
  return dot;
}

// A buffer row that holds no assignment.
template <int kWidth, class Function, class T>
__device__ void zero_row(const BackwardRow<T>& row, int64_t lane, int64_t hidden) {
  for (int64_t c = lane * kWidth; c < hidden; c += kWarpSize * kWidth) {
    store<kWidth>(row.grad_pre + c, Floats<kWidth>{});
    if constexpr (Function::kGated) store<kWidth>(row.grad_pre + hidden + c, Floats<kWidth>{});
    if (row.scaled_out != nullptr) store<kWidth>(row.scaled_out + c, Floats<kWidth>{});
  }
}

struct Gates {
  float* grad;
  const float* gate;              // null without gates
  const int32_t* row_assignment;  // null: one gate a row
};

// One warp a row.
template <int kWidth, class Function, class T>
__global__ void activation_backward_kernel(BackwardRow<T> at, Gates gates, int64_t rows, int64_t hidden) {
  const int64_t row = int64_t{blockIdx.x} * kRowsPerBlock + threadIdx.x / kWarpSize;
  if (row >= rows) return;
  const int64_t lane = threadIdx.x % kWarpSize, pre_width = hidden * (Function::kGated ? 2 : 1);
  at.grad_pre += row * pre_width;
  at.pre += row * pre_width;
  at.grad_out += row * hidden;
  if (at.scaled_out != nullptr) at.scaled_out += row * hidden;

  const bool routed = gates.gate != nullptr;
  const int64_t at_gate = gates.row_assignment != nullptr ? gates.row_assignment[row] : row;
  if (at_gate < 0) return zero_row<kWidth, Function>(at, lane, hidden);
  const float scale = routed ? gates.gate[at_gate] : 1.0f;
  float dot = 0;
  for (int64_t c = lane * kWidth; c < hidden; c += kWarpSize * kWidth) {
    dot += backward_units<kWidth, Function>(at, c, scale, hidden);
  }
  if (!routed) return;
  dot = warp_sum(dot);
  if (lane == 0) gates.grad[at_gate] = dot;
}

}  // namespace

void activation_forward(Context& ctx, const ops::ActivationForward& args) {
  const int64_t rows = args.out.rows(), hidden = args.out.cols();
  dispatch(args.out.dtype, args.kind, hidden, {args.out, args.pre}, [&](auto zero, auto function, auto width) {
    using T = decltype(zero);
    const RowLanes part(hidden, width(), kThreads);
    launch({.grid = block_count(rows, part.rows_per_block(kThreads)), .block = kThreads, .stream = stream_of(ctx)},
           activation_forward_kernel<width(), decltype(function), typename DeviceElement<T>::Type>,
           elements<T>(args.out), elements<const T>(args.pre), rows, hidden, part);
  });
}

void activation_backward(Context& ctx, const ops::ActivationBackward& args) {
  const int64_t rows = args.pre.rows(), hidden = args.grad_out.cols();
  const Gates gates = {elements<float>(args.grad_gate), elements<const float>(args.gate),
                       elements<const int32_t>(args.row_assignment)};
  dispatch(args.pre.dtype, args.kind, hidden, {args.grad_pre, args.grad_out, args.pre, args.scaled_out},
           [&](auto zero, auto function, auto width) {
             using T = decltype(zero);
             using Element = typename DeviceElement<T>::Type;
             const BackwardRow<Element> at = {elements<T>(args.grad_pre), elements<T>(args.scaled_out),
                                              elements<const T>(args.grad_out), elements<const T>(args.pre)};
             launch({.grid = block_count(rows, kRowsPerBlock), .block = kThreads, .stream = stream_of(ctx)},
                    activation_backward_kernel<width(), decltype(function), Element>, at, gates, rows, hidden);
           });
}

}  // namespace mhmoe::cuda
