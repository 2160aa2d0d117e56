#include "ops/elementwise.h"

#include "kernels/kernels.h"
#include "kernels/launch.h"
#include "kernels/reduce.cuh"
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

template <int kWidth, class Out, class A, class B>
__device__ void add_elements(Out* out, const A* a, const B* b) {
  auto sum = load<kWidth>(a);
  const auto other = load<kWidth>(b);
  for (int i = 0; i < kWidth; ++i) sum[i] += other[i];
  store<kWidth>(out, sum);
}

template <int kWidth, class Out, class A, class B>
__global__ void add_kernel(Out* out, const A* a, const B* b, int64_t count) {
  const int64_t begin = (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kWidth;
  if (begin + kWidth <= count) {
    add_elements<kWidth>(out + begin, a + begin, b + begin);
  } else {
    for (int64_t i = begin; i < count; ++i) add_elements<1>(out + i, a + i, b + i);
  }
}

constexpr int64_t kFewestTerms = int64_t{1} << 14;  // a chunk's
constexpr int64_t kMostChunks = 4096;
constexpr int kTerms = 4;  // that follow each other and are one thread's, whether they are loaded as a pack or not

// The chunks depend on the count alone.
int64_t chunk_terms(int64_t count) {
  const int64_t shared = (count + kMostChunks - 1) / kMostChunks;
  return std::max(kFewestTerms, (shared + kTerms - 1) / kTerms * kTerms);
}

__device__ double term(float value, bool squares) {
  return squares ? double{value} * double{value} : double{value};
}

// partial: one sum a chunk, of one block.
template <int kWidth>
__global__ void reduce_chunk_kernel(double* partial, const float* in, int64_t count, int64_t terms, bool squares) {
  const int64_t begin = blockIdx.x * terms;
  const int64_t end = begin + terms < count ? begin + terms : count;
  double sum = 0;
  for (int64_t i = begin + int64_t{threadIdx.x} * kTerms; i < end; i += kThreads * kTerms) {
    if (i + kTerms <= end) {
#pragma unroll
      for (int pack = 0; pack < kTerms; pack += kWidth) {
        const auto values = load<kWidth>(in + i + pack);
        for (int j = 0; j < kWidth; ++j) sum += term(values[j], squares);
      }
    } else {
      for (int64_t j = i; j < end; ++j) sum += term(in[j], squares);
    }
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void add_chunks_kernel(float* out, const double* partial, int64_t chunks, const float* scale) {
  double sum = 0;
  for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += kThreads) sum += partial[chunk];
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) out[0] += static_cast<float>(scale_or_one(scale) * sum);
}

// f64 [chunks]
Tensor allocate_partials(Context& ctx, const Tensor& in) {
  return ctx.step().allocate("reduce_partials", DType::kF64, {block_count(in.count(), chunk_terms(in.count()))});
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

void add(Context& ctx, const ops::Add& args) {
  const int64_t count = args.out.count();
  dispatch_float(args.out.dtype, [&](auto out_zero) {
    dispatch_float(args.a.dtype, [&](auto a_zero) {
      dispatch_float(args.b.dtype, [&](auto b_zero) {
        using Out = decltype(out_zero);
        using A = decltype(a_zero);
        using B = decltype(b_zero);
        dispatch_aligned<kPack>({args.out, args.a, args.b}, [&](auto width) {
          launch({.grid = block_count(count, kThreads * width()), .block = kThreads, .stream = stream_of(ctx)},
                 add_kernel<width(), typename DeviceElement<Out>::Type, typename DeviceElement<A>::Type,
                            typename DeviceElement<B>::Type>,
                 elements<Out>(args.out), elements<const A>(args.a), elements<const B>(args.b), count);
        });
      });
    });
  });
}

void reduce_scratch(Context& ctx, const ops::Reduce& args) {
  allocate_partials(ctx, args.in);
}

void reduce(Context& ctx, const ops::Reduce& args) {
  const int64_t count = args.in.count();
  const ArenaScope scope(ctx.step());
  const Tensor partial = allocate_partials(ctx, args.in);
  dispatch_aligned<kTerms>({args.in}, [&](auto width) {
    launch({.grid = static_cast<unsigned>(partial.count()), .block = kThreads, .stream = stream_of(ctx)},
           reduce_chunk_kernel<width()>, elements<double>(partial), elements<const float>(args.in), count,
           chunk_terms(count), args.squares);
  });
  launch({.grid = 1, .block = kThreads, .stream = stream_of(ctx)}, add_chunks_kernel, elements<float>(args.out),
         elements<const double>(partial), partial.count(), elements<const float>(args.scale));
}

}  // namespace mhmoe::cuda
