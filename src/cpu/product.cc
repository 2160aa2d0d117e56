#include "cpu/product.h"

#include <oneapi/dnnl/dnnl.hpp>

namespace mhmoe::cpu {

bool native_bf16() {
  constexpr auto kNeeded = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  static const bool kNative = (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kNeeded) == kNeeded;
  return kNative;
}

}  // namespace mhmoe::cpu
