// Planted mistakes (planted_kernels.cu) are found by the modes that the emulator's README says find them, and right
// kernels are right in all. Each runs in a process of its own, because a sanitizer's finding ends the process.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <ostream>
#include <string>

#include "environment.h"

namespace planted {
namespace {

constexpr const char *kRight = "right\n", *kWrong = "wrong\n", *kNan = "not-a-number\n";
constexpr const char* kRace = "WARNING: ThreadSanitizer: data race";
constexpr const char* kBeyond = "emulator: a kernel touches memory beyond device memory of ";
constexpr const char* kNotRun = nullptr;  // what the mistake does is undefined in this build, and nobody watches it

// What a run prints, in each order of a plain build and in the forward order of the sanitizers' builds.
struct Case {
  const char *name, *forward, *reversed, *random, *address, *thread;
};

void PrintTo(const Case& planted, std::ostream* out) {
  *out << planted.name;
}

constexpr Case fault_everywhere(const char* name, const char* fault) {
  return {name, fault, fault, fault, fault, fault};
}
constexpr Case memory_fault(const char* name, const char* address) {
  return {name, kNotRun, kNotRun, kNotRun, address, kNotRun};
}
constexpr Case unwritten(const char* name) {
  return {name, kNan, kNan, kNan, kNan, kNan};
}

constexpr Case kCases[] = {
    {"right", kRight, kRight, kRight, kRight, kRight},
    {"right_blocks", kRight, kRight, kRight, kRight, kRight},
    {"missing_barrier", kRight, kNan, kNan, kRight, kRace},
    {"missing_barrier_wrap", kNan, kNan, kNan, kNan, kRace},
    {"missing_barrier_template", kRight, kNan, kNan, kRight, kRace},
    {"missing_trailing_barrier", kWrong, kWrong, kWrong, kWrong, kRace},
    {"missing_syncwarp", kNan, kNan, kNan, kNan, kRace},
    {"shuffle_for_syncwarp", kRight, kRight, kRight, kRight, kRace},
    unwritten("unwritten_shared"),
    unwritten("unwritten_template_shared"),
    unwritten("unwritten_dynamic_shared"),
    memory_fault("static_shared_overrun", "AddressSanitizer: global-buffer-overflow"),
    memory_fault("template_shared_overrun", "AddressSanitizer: global-buffer-overflow"),
    memory_fault("dynamic_shared_overrun", "AddressSanitizer: heap-buffer-overflow"),
    {"global_overrun", kBeyond, kBeyond, kBeyond, "AddressSanitizer: use-after-poison", kNotRun},
    memory_fault("local_overrun", "AddressSanitizer: stack-buffer-overflow"),
    memory_fault("misaligned_load", "misaligned address"),
    memory_fault("misaligned_store", "misaligned address"),
    fault_everywhere("divergent_barrier", "emulator: divergent __syncthreads: "),
    fault_everywhere("barrier_in_a_branch", "emulator: deadlock: "),
    fault_everywhere("divergent_shuffle", "a warp operation's mask ffffffff names "),
    fault_everywhere("shuffle_after_exit", "a warp operation's mask ffffffff names "),
    {"pipeline", kRight, kRight, kRight, kRight, kRight},
    {"weak_wait", kNan, kNan, kNan, kNan, kNan},
    {"no_wait", kNan, kNan, kNan, kNan, kNan},
    fault_everywhere("no_commit", "a thread exits before cp.async copies that it never waited for"),
    {"no_leading_barrier", kNan, kNan, kNan, kNan, kRace},
    {"no_trailing_barrier", kNan, kNan, kNan, kNan, kRace},
    {"race_between_blocks", kRight, kRight, kRight, kRight, kRace},
};

// All that the program prints.
std::string output(const char* kernel, const char* order) {
  const WithVariable with_order("EMULATOR_ORDER", order), at_exit("TSAN_OPTIONS", "atexit_sleep_ms=0");
  // What UndefinedBehaviorSanitizer knows of the same mistake must not come before AddressSanitizer's word.
  const WithVariable go_on("UBSAN_OPTIONS", "halt_on_error=0");
  const auto program = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "emulator_planted";
  std::string out;
  FILE* pipe = popen((program.string() + " " + kernel + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  std::array<char, 4096> buffer;
  while (const size_t bytes = fread(buffer.data(), 1, buffer.size(), pipe)) out.append(buffer.data(), bytes);
  pclose(pipe);
  return out;
}

void expect_output(const char* kernel, const char* order, const char* expected) {
  if (expected == kNotRun) return;
  const std::string out = output(kernel, order);
  EXPECT_NE(out.find(expected), std::string::npos) << kernel << " " << order << " printed:\n" << out;
}

class Planted : public testing::TestWithParam<Case> {};

TEST_P(Planted, IsFoundAsTheReadmeSays) {
  const Case& planted = GetParam();
  if (kBuild == Build::kThreadSanitizer) return expect_output(planted.name, "forward", planted.thread);
  if (kBuild == Build::kAddressSanitizer) {
    const std::string name = planted.name;
    if (!kGuardedSharedMemory && name == "static_shared_overrun") {
      GTEST_SKIP() << "only clang's builds have guards between static shared variables";
    }
    if (!kGuardedSharedMemory && name == "template_shared_overrun") {
      return expect_output(planted.name, "forward", "out of bounds for type 'float [");
    }
    if (kGuardedSharedMemory && std::string(planted.name).starts_with("misaligned")) {
      GTEST_SKIP() << "clang does not check the alignment of structures that are copied whole";
    }
    return expect_output(planted.name, "forward", planted.address);
  }
  expect_output(planted.name, "forward", planted.forward);
  expect_output(planted.name, "reversed", planted.reversed);
  expect_output(planted.name, "random:1", planted.random);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Planted, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace planted
