#include "cpu/levels.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>

#include "cpu/backend.h"
#include "cpu/product.h"

namespace mhmoe {
namespace {

constexpr const char* kNeeded[] = {"sse4.2", "avx", "avx2", "fma", nullptr};

ExitCode code_of(std::string_view level, std::string& text) {
  try {
    cpu::request_level(level);
  } catch (const Error& error) {
    text = error.what();
    return error.code();
  }
  return ExitCode::kOk;
}

TEST(CpuLevels, MissingInstructionsAreNamedWithWhatToDo) {
  const cpu::KernelLevel level = {.name = "of a test", .needs = kNeeded, .kernels = cpu::backend().kernels};
  const std::string reason =
      cpu::missing_instructions(level, [](std::string_view set) { return set != "avx2" && set != "fma"; });
  EXPECT_TRUE(reason.starts_with("this CPU lacks avx2, fma, ")) << reason;
  EXPECT_NE(reason.find("-DMHMOE_CPU_ARCH=x86-64-v2"), std::string::npos) << reason;
  EXPECT_EQ(reason.find('\n'), std::string::npos);
  EXPECT_EQ(cpu::missing_instructions(level, [](std::string_view) { return true; }), "");
}

const cpu::KernelLevel* highest_here() {
  const cpu::KernelLevel* best = nullptr;
  for (const cpu::KernelLevel* level : cpu::levels()) {
    if (cpu::missing_instructions(*level, cpu::has_instructions).empty()) best = level;
  }
  return best;
}

// MHMOE_CPU_ISA is set where this runs for every level (tests/CMakeLists.txt).
TEST(CpuLevels, TheHighestThatTheMachineHasIsTakenUnlessTheEnvironmentForcesAnother) {
  const cpu::KernelLevel& taken = cpu::level();
  EXPECT_EQ(&taken, highest_here());  // forced: of what is left of the machine
  const char* forced = std::getenv("MHMOE_CPU_ISA");
  if (forced != nullptr && std::string_view(forced) != "auto") {
    EXPECT_STREQ(taken.name, forced);
  }
  EXPECT_EQ(&cpu::backend().kernels, &taken.kernels);
  const auto context = cpu::backend().create_context(0);
  EXPECT_NE(context->name().find(taken.name), std::string::npos) << context->name();
}

// A higher processor's products would have other bits than those of the processors that a forced level stands for.
TEST(CpuLevels, OneDnnHasWhatTheLevelHasAndNoMore) {
  const std::string_view taken = cpu::level().name;
  if (!taken.starts_with("avx")) GTEST_SKIP() << "skipped: this build has kernels \"" << taken << "\" alone";
  EXPECT_EQ(cpu::has_instructions("avx512f"), taken != "avx2");
  EXPECT_EQ(cpu::native_bf16(), taken == "avx512_bf16");
}

TEST(CpuLevels, EveryLevelHasKernelsOfItsOwn) {
  std::set<const void*> kernels;
  for (const cpu::KernelLevel* level : cpu::levels()) {
    const void* first = nullptr;  // the table's first function
    std::memcpy(&first, &level->kernels, sizeof(first));
    kernels.insert(first);
  }
  EXPECT_EQ(kernels.size(), cpu::levels().size());
}

TEST(CpuLevels, AnUnknownLevelIsRefusedWithThoseThatThereAre) {
  std::string text;
  EXPECT_EQ(code_of("sse9", text), ExitCode::kUsage);
  for (const cpu::KernelLevel* level : cpu::levels()) EXPECT_NE(text.find(level->name), std::string::npos) << text;
}

// The kernel's own list of what this CPU has.
TEST(CpuLevels, HasWhatTheKernelSays) {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line) && !line.starts_with("flags")) {
  }
  if (line.empty()) GTEST_SKIP() << "skipped: no x86 flags in /proc/cpuinfo";
  std::istringstream words(line);
  const std::vector<std::string> flags{std::istream_iterator<std::string>(words), {}};
  const std::pair<const char*, const char*> names[] = {
      {"sse4.2", "sse4_2"},     {"popcnt", "popcnt"},     {"avx", "avx"},           {"avx2", "avx2"},
      {"fma", "fma"},           {"bmi", "bmi1"},          {"bmi2", "bmi2"},         {"avx512f", "avx512f"},
      {"avx512vl", "avx512vl"}, {"avx512bw", "avx512bw"}, {"avx512dq", "avx512dq"}, {"avx512bf16", "avx512_bf16"},
      {"avx512cd", "avx512cd"}, {"movbe", "movbe"},       {"f16c", "f16c"},         {"lzcnt", "abm"}};
  for (const auto& [ours, theirs] : names) {
    if (cpu::has_instructions(ours)) {
      EXPECT_GT(std::ranges::count(flags, theirs), 0) << ours;
    }
    // The libraries may be held to less than the CPU has.
    if (std::getenv("MHMOE_CPU_ISA") == nullptr && std::getenv("ONEDNN_MAX_CPU_ISA") == nullptr) {
      EXPECT_EQ(cpu::has_instructions(ours), std::ranges::count(flags, theirs) > 0) << ours;
    }
  }
}

TEST(CpuLevels, AnUnusableCpuIsRefusedBeforeAnythingRuns) {
  const Backend& cpu = cpu::backend();
  EXPECT_EQ(cpu.unusable_reason(), nullptr);
  const Backend old{.name = cpu.name,
                    .kind = cpu.kind,
                    .kernels = cpu.kernels,
                    .create_context = cpu.create_context,
                    .create_communicator = cpu.create_communicator,
                    .unusable_reason = [] { return "this CPU lacks avx2"; },
                    .prefers_bf16 = cpu.prefers_bf16,
                    .nccl_version = nullptr};
  try {
    open_backend("cpu", old);
    FAIL() << "it was accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDevice);
    EXPECT_STREQ(error.what(), "--device cpu: this CPU lacks avx2");
  }
  EXPECT_THROW(choose_backend(nullptr, old), Error);
}

}  // namespace
}  // namespace mhmoe
