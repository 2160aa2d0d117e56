#include "ops/elementwise.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPack = 8;

// kWidth elements a thread; the last thread may have fewer.
template <int kWidth, class Out, class In>
__global__ void cast_kernel(Out* out, const In* in, int64_t count) {
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (begin + kWidth <= count) {
    store<kWidth>(out + begin, load<kWidth>(in + begin));
  } else {
    for (int64_t i = begin; i < count; ++i) store<1>(out + i, load<1>(in + i));
  }
}

}  // namespace

void cast(Context& ctx, const ops::Cast& args) {
  const int64_t count = args.in.count();
  dispatch_float(args.out.dtype, [&](auto out_zero) {
    dispatch_float(args.in.dtype, [&](auto in_zero) {
      using Out = decltype(out_zero);
      using In = decltype(in_zero);
      dispatch_aligned<kPack>({args.out, args.in}, [&](auto width) {
        launch({.grid = block_count(count, kThreads * width()), .block = kThreads, .stream = stream_of(ctx)},
               cast_kernel<width(), typename DeviceElement<Out>::Type, typename DeviceElement<In>::Type>,
               elements<Out>(args.out), elements<const In>(args.in), count);
      });
    });
  });
}

}  // namespace mhmoe::cuda
