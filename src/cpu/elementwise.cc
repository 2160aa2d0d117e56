#include "ops/elementwise.h"

#include <algorithm>
#include <array>
#include <type_traits>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

constexpr int64_t kCastGrain = int64_t{1} << 15;
constexpr int64_t kSmallestChunk = int64_t{1} << 14;
constexpr int64_t kMostChunks = 4096;

double sum_chunk(const float* in, int64_t count, bool squares) {
  double sum = 0;
  if (squares) {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(in[i]) * static_cast<double>(in[i]);
  } else {
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(in[i]);
  }
  return sum;
}

}  // namespace

void cast(Context& ctx, const ops::Cast& args) {
  if (args.out.dtype == args.in.dtype) return ctx.copy(args.out, args.in);
  dispatch_float(args.in.dtype, [&](auto zero) {
    const auto* in = args.in.as<const decltype(zero)>();
    parallel_for(args.in.count(), kCastGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
      if constexpr (std::is_same_v<decltype(zero), float>) {
        store_row(args.out.as<bfloat16>() + begin, in + begin, end - begin);
      } else {
        load_row(args.out.as<float>() + begin, in + begin, end - begin);
      }
    });
  });
}

void add(Context& /*ctx*/, const ops::Add& args) {
  dispatch_float(args.out.dtype, [&](auto out_zero) {
    dispatch_float(args.a.dtype, [&](auto a_zero) {
      dispatch_float(args.b.dtype, [&](auto b_zero) {
        auto* out = args.out.as<decltype(out_zero)>();
        const auto* a = args.a.as<decltype(a_zero)>();
        const auto* b = args.b.as<decltype(b_zero)>();
        parallel_for(args.out.count(), kCastGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) {
            out[i] = static_cast<decltype(out_zero)>(static_cast<float>(a[i]) + static_cast<float>(b[i]));
          }
        });
      });
    });
  });
}

// The chunks depend on the count alone, and their sums are added in order.
void reduce(Context& /*ctx*/, const ops::Reduce& args) {
  const int64_t count = args.in.count();
  const int64_t chunk = std::max(kSmallestChunk, (count + kMostChunks - 1) / kMostChunks);
  const int64_t chunks = (count + chunk - 1) / chunk;
  const auto* in = args.in.as<const float>();
  std::array<double, kMostChunks> sums;
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t c = begin; c < end; ++c) {
      sums[c] = sum_chunk(in + c * chunk, std::min(chunk, count - c * chunk), args.squares);
    }
  });
  double total = 0;
  for (int64_t c = 0; c < chunks; ++c) total += sums[c];
  args.out.as<float>()[0] += static_cast<float>(scale_or_one(args.scale) * total);
}

}  // namespace mhmoe::cpu
