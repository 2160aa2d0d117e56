#include "cpu/requirements.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <sstream>

#include "cpu/backend.h"

namespace mhmoe {
namespace {

constexpr const char* kNeeded[] = {"sse4.2", "avx", "avx2", "fma", nullptr};

TEST(CpuRequirements, MissingInstructionsAreNamedWithWhatToDo) {
  const std::string reason =
      cpu::missing_instructions(kNeeded, [](std::string_view set) { return set != "avx2" && set != "fma"; });
  EXPECT_TRUE(reason.starts_with("this CPU lacks avx2, fma, ")) << reason;
  EXPECT_NE(reason.find("-DMHMOE_CPU_ARCH=x86-64-v2"), std::string::npos) << reason;
  EXPECT_EQ(reason.find('\n'), std::string::npos);
  EXPECT_EQ(cpu::missing_instructions(kNeeded, [](std::string_view) { return true; }), "");
}

// The kernel's own list of what this CPU has.
TEST(CpuRequirements, HasWhatTheKernelSays) {
  std::ifstream info("/proc/cpuinfo");
  std::string line;
  while (std::getline(info, line) && !line.starts_with("flags")) {
  }
  if (line.empty()) GTEST_SKIP() << "skipped: no x86 flags in /proc/cpuinfo";
  std::istringstream words(line);
  const std::vector<std::string> flags{std::istream_iterator<std::string>(words), {}};
  const std::pair<const char*, const char*> names[] = {
      {"sse4.2", "sse4_2"},     {"popcnt", "popcnt"},     {"avx", "avx"},          {"avx2", "avx2"},
      {"fma", "fma"},           {"bmi", "bmi1"},          {"bmi2", "bmi2"},        {"avx512f", "avx512f"},
      {"avx512vl", "avx512vl"}, {"avx512bw", "avx512bw"}, {"avx512dq", "avx512dq"}};
  for (const auto& [ours, theirs] : names) {
    EXPECT_EQ(cpu::has_instructions(ours), std::ranges::count(flags, theirs) > 0) << ours;
  }
}

TEST(CpuRequirements, AnUnusableCpuIsRefusedBeforeAnythingRuns) {
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
