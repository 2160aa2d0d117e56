// The emulator must find planted mistakes (planted.cu), and nothing in the kernel that has none.
#include <dlfcn.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "cuda/emulated_test.h"

namespace mhmoe {
namespace {

constexpr int kThreads = 128;
using Values = std::array<float, kThreads>;

class Planted : public testing::Test {
 protected:
  void SetUp() override {
    if (!MHMOE_HAS_EMULATED) GTEST_SKIP() << "skipped: no CUDA headers were found when this was built";
    const auto path = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libmhmoe_planted.so";
    handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    ASSERT_NE(handle_, nullptr) << dlerror();
    for (int i = 0; i < kThreads; ++i) in_[i] = static_cast<float>(i + 1);
  }

  Values run(const char* kernel, const char* order) {
    const test::WithOrder with(order);
    const auto function =
        reinterpret_cast<void (*)(const char*, float*, const float*)>(dlsym(handle_, "mhmoe_planted_run"));
    Values out{};
    function(kernel, out.data(), in_.data());
    return out;
  }

  // The message of the fault that ends the kernel; empty if none does.
  std::string fault(const char* kernel, const char* order) {
    try {
      run(kernel, order);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kInternal);
      return error.what();
    }
    return {};
  }

  // in[t - 1], in[0] for the first.
  Values shifted() const {
    Values out = in_;
    std::copy_n(in_.begin(), kThreads - 1, out.begin() + 1);
    return out;
  }

  void* handle_ = nullptr;
  Values in_{};
};

bool has_nan(const Values& values) {
  return std::ranges::any_of(values, [](float value) { return value != value; });
}

TEST_F(Planted, TheRightKernelIsRightInEveryOrder) {
  for (const char* order : test::kOrders) EXPECT_EQ(run("right", order), shifted()) << order;
}

TEST_F(Planted, AMissingBarrierShowsInSomeOrder) {
  for (const char* kernel : {"missing_barrier", "missing_barrier_template"}) {
    EXPECT_NE(run(kernel, "reversed"), shifted()) << kernel;
    EXPECT_NE(run(kernel, "random:1"), shifted()) << kernel;
  }
}

TEST_F(Planted, SharedMemoryThatNobodyWroteShowsInEveryOrder) {
  for (const char* order : test::kOrders) {
    EXPECT_TRUE(has_nan(run("unwritten_shared", order))) << order;
    EXPECT_TRUE(has_nan(run("unwritten_dynamic_shared", order))) << order;
  }
}

TEST_F(Planted, AMissingWarpBarrierShowsInEveryOrder) {
  Values swapped = in_;
  for (int i = 0; i < kThreads; i += 2) std::swap(swapped[i], swapped[i + 1]);
  for (const char* order : test::kOrders) EXPECT_NE(run("missing_warp_barrier", order), swapped) << order;
}

TEST_F(Planted, DivergenceIsAFaultThatNamesTheThread) {
  for (const char* order : test::kOrders) {
    EXPECT_NE(fault("divergent_barrier", order).find("divergent __syncthreads: "), std::string::npos) << order;
    for (const char* kernel : {"divergent_shuffle", "shuffle_after_exit"}) {
      EXPECT_NE(fault(kernel, order).find("[block 0,0,0 thread "), std::string::npos) << kernel << " " << order;
    }
    EXPECT_EQ(run("right", order), shifted()) << "the engine works on after a fault";
  }
}

TEST_F(Planted, AnImpossibleLaunchIsRefusedWithItsPlace) {
  const auto function =
      reinterpret_cast<void (*)(float*, const float*)>(dlsym(handle_, "mhmoe_planted_launch_too_large"));
  Values out{};
  try {
    function(out.data(), in_.data());
    FAIL() << "2048 threads a block were accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kDevice);
    EXPECT_NE(std::string(error.what()).find("cudaErrorInvalidConfiguration"), std::string::npos) << error.what();
  }
}

TEST_F(Planted, AnUnknownOrderIsAnErrorOfUsage) {
  try {
    run("right", "sideways");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "MHMOE_EMULATOR_ORDER=sideways: allowed: forward, reversed, random:SEED");
  }
}

}  // namespace
}  // namespace mhmoe
