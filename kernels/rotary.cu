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

template <int kWidth>
struct Turns {
  Floats<kWidth> sine, cosine;
};

// Of pairs i to i + kWidth - 1 of a row; in double because positions reach thousands of turns.
template <int kWidth>
__device__ Turns<kWidth> turns_of(int64_t row, int64_t i, int64_t half, const Angles& angles) {
  const auto position = static_cast<double>(angles.first_position + row % angles.sequence_length);
  Turns<kWidth> turns;
  for (int j = 0; j < kWidth; ++j) {
    const double frequency = pow(angles.base, -static_cast<double>(i + j) / static_cast<double>(half));
    double sine, cosine;
    sincospi(position * frequency * angles.sign / kPi, &sine, &cosine);  // sincos needs local memory for large angles
    turns.sine[j] = static_cast<float>(sine);
    turns.cosine[j] = static_cast<float>(cosine);
  }
  return turns;
}

// One thread a row and kWidth pairs (i, i + half), for all heads of q (blockIdx.y 0) or of k (1): neighbours move
// neighbours, and a thread computes its angles once.
template <int kWidth, class T>
__global__ void rotary_kernel(T* qkv, int64_t rows, int64_t heads, int64_t half, Angles angles) {
  const int64_t packs = half / kWidth, index = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (index >= rows * packs) return;
  const int64_t row = index / packs, i = index % packs * kWidth;
  const Turns<kWidth> turns = turns_of<kWidth>(row, i, half, angles);
  T* pair = qkv + (row * 3 + blockIdx.y) * 2 * heads * half + i;
  for (int64_t h = 0; h < heads; ++h, pair += 2 * half) {
    auto a = load<kWidth>(pair), b = load<kWidth>(pair + half);
    for (int j = 0; j < kWidth; ++j) {
      const float first = a[j], second = b[j];
      a[j] = first * turns.cosine[j] - second * turns.sine[j];
      b[j] = second * turns.cosine[j] + first * turns.sine[j];
    }
    store<kWidth>(pair, a);
    store<kWidth>(pair + half, b);
  }
}

}  // namespace

void rotary(Context& ctx, const ops::Rotary& args) {
  const int64_t rows = args.qkv.rows(), half = args.qkv.cols() / (6 * args.heads);
  const Angles angles = {args.sequence_length, args.first_position, args.base, args.inverse ? -1.0 : 1.0};
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr int kPack = 16 / sizeof(T);
    dispatch_width<kPack>(half, {args.qkv}, [&](auto width) {
      launch(
          {.grid = dim3(block_count(rows * half, kThreads * width()), 2), .block = kThreads, .stream = stream_of(ctx)},
          rotary_kernel<width(), typename DeviceElement<T>::Type>, elements<T>(args.qkv), rows, args.heads, half,
          angles);
    });
  });
}

}  // namespace mhmoe::cuda
