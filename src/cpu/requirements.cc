// Compiled for the oldest CPU of the architecture (src/CMakeLists.txt), because it runs before it is known which this
// is.
#include "cpu/requirements.h"

#include <fmt/core.h>

namespace mhmoe::cpu {

bool has_instructions(std::string_view set) {
#ifdef __x86_64__
  if (set == "sse4.2") return __builtin_cpu_supports("sse4.2");
  if (set == "popcnt") return __builtin_cpu_supports("popcnt");
  if (set == "avx") return __builtin_cpu_supports("avx");
  if (set == "avx2") return __builtin_cpu_supports("avx2");
  if (set == "fma") return __builtin_cpu_supports("fma");
  if (set == "bmi") return __builtin_cpu_supports("bmi");
  if (set == "bmi2") return __builtin_cpu_supports("bmi2");
  if (set == "avx512f") return __builtin_cpu_supports("avx512f");
  if (set == "avx512vl") return __builtin_cpu_supports("avx512vl");
  if (set == "avx512bw") return __builtin_cpu_supports("avx512bw");
  if (set == "avx512dq") return __builtin_cpu_supports("avx512dq");
#endif
  return false;
}

std::string missing_instructions(const char* const* needed, bool (*has)(std::string_view)) {
  std::string missing;
  for (; *needed != nullptr; ++needed) {
    if (!has(*needed)) missing += fmt::format("{}{}", missing.empty() ? "" : ", ", *needed);
  }
  if (missing.empty()) return missing;
  return fmt::format(
      "this CPU lacks {}, which the program was compiled for (MHMOE_CPU_ARCH={}); rebuild with "
      "-DMHMOE_CPU_ARCH=x86-64-v2, or native on this machine",
      missing, MHMOE_CPU_ARCH);
}

const char* unusable_reason() {
  static const std::string reason = missing_instructions(kCompiledFor, has_instructions);
  return reason.empty() ? nullptr : reason.c_str();
}

}  // namespace mhmoe::cpu
