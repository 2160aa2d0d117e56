// The kernels of this level. All of its objects are linked into one, of which nothing but the function below is seen
// (src/CMakeLists.txt): what headers define inline is compiled in each level for its own processors.
#include "cpu/levels.h"

#include "cpu/kernels.h"

#define MHMOE_CONCAT_(a, b) a##b
#define MHMOE_CONCAT(a, b) MHMOE_CONCAT_(a, b)
#define MHMOE_STRING_(a) #a
#define MHMOE_STRING(a) MHMOE_STRING_(a)

namespace mhmoe::cpu {
namespace {

constexpr const char* kCompiledFor[] = {
#ifdef __SSE4_2__
    "sse4.2",
#endif
#ifdef __POPCNT__
    "popcnt",
#endif
#ifdef __AVX__
    "avx",
#endif
#ifdef __AVX2__
    "avx2",
#endif
#ifdef __FMA__
    "fma",
#endif
#ifdef __BMI__
    "bmi",
#endif
#ifdef __BMI2__
    "bmi2",
#endif
#ifdef __AVX512F__
    "avx512f",
#endif
#ifdef __AVX512VL__
    "avx512vl",
#endif
#ifdef __AVX512BW__
    "avx512bw",
#endif
#ifdef __AVX512DQ__
    "avx512dq",
#endif
#ifdef __MOVBE__
    "movbe",
#endif
#ifdef __F16C__
    "f16c",
#endif
#ifdef __LZCNT__
    "lzcnt",
#endif
#ifdef __AVX512CD__
    "avx512cd",
#endif
#ifdef __AVX512BF16__
    "avx512bf16",
#endif
    nullptr,
};

constexpr ops::KernelTable kKernels = {
    .embedding_forward = embedding_forward,
    .embedding_backward = embedding_backward,
    .rms_norm_forward = rms_norm_forward,
    .rms_norm_backward = rms_norm_backward,
    .matmul = matmul,
    .bias_backward = bias_backward,
    .rotary = rotary,
    .attention_forward = attention_forward,
    .attention_backward = attention_backward,
    .attention_cached = attention_cached,
    .activation_forward = activation_forward,
    .activation_backward = activation_backward,
    .router_forward = router_forward,
    .router_backward = router_backward,
    .assign_slots = assign_slots,
    .gather_rows = gather_rows,
    .combine_rows = combine_rows,
    .grouped_matmul = grouped_matmul,
    .grouped_weight_grad = grouped_weight_grad,
    .grouped_bias_backward = grouped_bias_backward,
    .cross_entropy = cross_entropy,
    .cast = cast,
    .add = add,
    .reduce = reduce,
    .clip_scale = clip_scale,
    .adam_update = adam_update,
};

}  // namespace
}  // namespace mhmoe::cpu

extern "C" const mhmoe::cpu::KernelLevel* MHMOE_CONCAT(mhmoe_cpu_level_, MHMOE_CPU_LEVEL)() {
  static constexpr mhmoe::cpu::KernelLevel kLevel = {
      .name = MHMOE_STRING(MHMOE_CPU_LEVEL), .needs = mhmoe::cpu::kCompiledFor, .kernels = mhmoe::cpu::kKernels};
  return &kLevel;
}
