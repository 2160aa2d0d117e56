#include "ops/rotary.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr double kPi = 3.14159265358979323846;

struct Angles {
  int64_t sequence_length, first_position;
  double base;
  double sign;
};

// One thread a row and pair (i, i + half), for all heads of q and k: neighbours move neighbours, and the angle, in
// double because positions reach thousands of turns, is computed once.
template <class T>
__global__ void rotary_kernel(T* qkv, int64_t rows, int64_t heads, int64_t half, Angles angles) {
  const int64_t index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= rows * half) return;
  const int64_t row = index / half, i = index % half;
  const double frequency = pow(angles.base, -static_cast<double>(i) / static_cast<double>(half));
  const int64_t position = angles.first_position + row % angles.sequence_length;
  const double half_turns = static_cast<double>(position) * frequency * angles.sign / kPi;
  double sine, cosine;
  sincospi(half_turns, &sine, &cosine);  // sincos needs local memory to reduce large angles
  const float s = static_cast<float>(sine), c = static_cast<float>(cosine);

  T* pair = qkv + row * 6 * heads * half + i;
  for (int64_t h = 0; h < 2 * heads; ++h, pair += 2 * half) {
    const float a = to_float(pair[0]), b = to_float(pair[half]);
    pair[0] = from_float<T>(a * c - b * s);
    pair[half] = from_float<T>(b * c + a * s);
  }
}

}  // namespace

void rotary(Context& ctx, const ops::Rotary& args) {
  const int64_t rows = args.qkv.rows(), half = args.qkv.cols() / (6 * args.heads);
  const Angles angles = {args.sequence_length, args.first_position, args.base, args.inverse ? -1.0 : 1.0};
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch({.grid = block_count(rows * half, kThreads), .block = kThreads, .stream = stream_of(ctx)},
           rotary_kernel<typename DeviceElement<T>::Type>, elements<T>(args.qkv), rows, args.heads, half, angles);
  });
}

}  // namespace mhmoe::cuda
