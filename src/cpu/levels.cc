// Compiled for the oldest CPU of the architecture (src/CMakeLists.txt), because it runs before it is known which this
// is.
#include "cpu/levels.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <array>
#include <cstdlib>
#include <vector>

#include "cpu/product.h"

#ifdef __x86_64__
#include <cpuid.h>
#endif

// MHMOE_CPU_LEVELS: LEVEL(name) for each, the lowest first.
#define LEVEL(name) extern "C" const mhmoe::cpu::KernelLevel* mhmoe_cpu_level_##name();
MHMOE_CPU_LEVELS
#undef LEVEL

namespace mhmoe::cpu {
namespace {

constexpr const char* kVariable = "MHMOE_CPU_ISA";

const KernelLevel* g_level = nullptr;

bool cpu_has(std::string_view set) {
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
  if (set == "avx512cd") return __builtin_cpu_supports("avx512cd");
  if (set == "avx512bf16") return __builtin_cpu_supports("avx512bf16");
  // Those that not every compiler's built-in function knows.
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (set == "movbe") return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_MOVBE) != 0;
  if (set == "f16c") return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
  if (set == "lzcnt") return __get_cpuid(0x80000001, &a, &b, &c, &d) != 0 && (c & bit_LZCNT) != 0;
#endif
  return false;
}

bool needs(const KernelLevel& level, std::string_view wanted) {
  for (const char* const* set = level.needs; *set != nullptr; ++set) {
    if (*set == wanted) return true;
  }
  return false;
}

void take(const KernelLevel& level, std::string_view asker) {
  // The library says what it has only once, so the CPU itself is asked first.
  std::string missing = missing_instructions(level, cpu_has);
  if (missing.empty()) {
    if (!limit_products(needs(level, "avx512f"), needs(level, "avx512bf16"))) {
      fail(ExitCode::kDevice, "{}: oneDNN cannot be held to the processors of the kernels \"{}\" any more", asker,
           level.name);
    }
    missing = missing_instructions(level, has_instructions);
  }
  if (!missing.empty()) fail(ExitCode::kDevice, "{}: {}", asker, missing);
  g_level = &level;
}

const KernelLevel* highest() {
  const KernelLevel* best = levels().front();
  for (const KernelLevel* candidate : levels()) {
    if (missing_instructions(*candidate, has_instructions).empty()) best = candidate;
  }
  return best;
}

// asker: where the name comes from.
void choose(std::string_view name, std::string_view asker) {
  std::string names = "auto";
  if (name == "auto" && g_level == nullptr) g_level = highest();
  if (name == "auto") return;
  for (const KernelLevel* candidate : levels()) {
    names += fmt::format(", {}", candidate->name);
    if (candidate->name != name) continue;
    MHMOE_CHECK(g_level == nullptr || g_level == candidate, "kernels \"{}\" are asked for, and \"{}\" are in use", name,
                g_level->name);
    return g_level == nullptr ? take(*candidate, asker) : void();
  }
  fail(ExitCode::kUsage, "{}: no kernels \"{}\" for CPUs in this program; choose one of {}", asker, name, names);
}

}  // namespace

std::span<const KernelLevel* const> levels() {
#define LEVEL(name) mhmoe_cpu_level_##name(),
  static const std::array kLevels = {MHMOE_CPU_LEVELS};
#undef LEVEL
  return kLevels;
}

bool has_instructions(std::string_view set) {
  return cpu_has(set) && products_have(set);
}

std::string missing_instructions(const KernelLevel& level, bool (*has)(std::string_view)) {
  std::vector<std::string_view> missing;
  for (const char* const* set = level.needs; *set != nullptr; ++set) {
    if (!has(*set)) missing.emplace_back(*set);
  }
  if (missing.empty()) return {};
  return fmt::format(
      "this CPU lacks {}, which the kernels \"{}\" are compiled for; {}rebuild with -DMHMOE_CPU_ARCH=x86-64-v2, or "
      "native on this machine",
      fmt::join(missing, ", "), level.name, &level == levels().front() ? "" : "take lower ones by --cpu-isa, or ");
}

void request_level(std::string_view name) {
  choose(name, "--cpu-isa");
}

const KernelLevel& level() {
  if (g_level == nullptr) {
    const char* wanted = std::getenv(kVariable);
    choose(wanted == nullptr || *wanted == 0 ? "auto" : wanted, kVariable);
  }
  return *g_level;
}

const char* unusable_reason() {
  static const std::string reason = missing_instructions(level(), has_instructions);
  return reason.empty() ? nullptr : reason.c_str();
}

}  // namespace mhmoe::cpu
