#include "core/parallel_for.h"
#include "cpu/kernels.h"

namespace mhmoe::cpu {

void add(Context& /*ctx*/, const ops::Add& args) {
  dispatch_float(args.out.dtype, [&](auto out_zero) {
    dispatch_float(args.a.dtype, [&](auto a_zero) {
      dispatch_float(args.b.dtype, [&](auto b_zero) {
        auto* out = args.out.as<decltype(out_zero)>();
        const auto* a = args.a.as<decltype(a_zero)>();
        const auto* b = args.b.as<decltype(b_zero)>();
        parallel_for(args.out.count(), 1 << 14, [&](int64_t begin, int64_t end, int /*thread*/) {
#pragma omp simd
          for (int64_t i = begin; i < end; ++i) {
            out[i] = static_cast<decltype(out_zero)>(static_cast<float>(a[i]) + static_cast<float>(b[i]));
          }
        });
      });
    });
  });
}

}  // namespace mhmoe::cpu
