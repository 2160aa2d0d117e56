// The emulator must find planted mistakes (planted.cu), and nothing in the kernel that has none.
#include "planted.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>

#include "emulator/fault.h"
#include "environment.h"

namespace planted {
namespace {

using Values = std::array<float, kThreads>;

class Planted : public testing::Test {
 protected:
  void SetUp() override {
    for (unsigned i = 0; i < kThreads; ++i) in_[i] = static_cast<float>(i + 1);
  }

  Values run(const char* kernel, const char* order) {
    const WithVariable with_order("EMULATOR_ORDER", order);
    Values out{};
    EXPECT_EQ(planted::run(kernel, kThreads, out.data(), in_.data()), cudaSuccess);
    return out;
  }

  // The message of the fault that ends the kernel; empty if none does.
  std::string fault(const char* kernel, const char* order) {
    try {
      run(kernel, order);
    } catch (const emulator::Fault& error) {
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

  Values in_{};
};

bool has_nan(const Values& values) {
  return std::ranges::any_of(values, [](float value) { return value != value; });
}

TEST_F(Planted, TheRightKernelIsRightInEveryOrder) {
  for (const char* order : kOrders) EXPECT_EQ(run("right", order), shifted()) << order;
}

TEST_F(Planted, AMissingBarrierShowsInSomeOrder) {
  for (const char* kernel : {"missing_barrier", "missing_barrier_template"}) {
    EXPECT_NE(run(kernel, "reversed"), shifted()) << kernel;
    EXPECT_NE(run(kernel, "random:1"), shifted()) << kernel;
  }
}

TEST_F(Planted, SharedMemoryThatNobodyWroteShowsInEveryOrder) {
  for (const char* order : kOrders) {
    EXPECT_TRUE(has_nan(run("unwritten_shared", order))) << order;
    EXPECT_TRUE(has_nan(run("unwritten_dynamic_shared", order))) << order;
  }
}

TEST_F(Planted, AMissingWarpBarrierShowsInEveryOrder) {
  Values swapped = in_;
  for (unsigned i = 0; i < kThreads; i += 2) std::swap(swapped[i], swapped[i + 1]);
  for (const char* order : kOrders) EXPECT_NE(run("missing_warp_barrier", order), swapped) << order;
}

TEST_F(Planted, DivergenceIsAFaultThatNamesTheThread) {
  for (const char* order : kOrders) {
    EXPECT_NE(fault("divergent_barrier", order).find("divergent __syncthreads: "), std::string::npos) << order;
    for (const char* kernel : {"divergent_shuffle", "shuffle_after_exit"}) {
      EXPECT_NE(fault(kernel, order).find("[block 0,0,0 thread "), std::string::npos) << kernel << " " << order;
    }
    EXPECT_EQ(run("right", order), shifted()) << "the engine works on after a fault";
  }
}

TEST_F(Planted, AnImpossibleLaunchIsRefused) {
  Values out{};
  EXPECT_EQ(planted::run("right", 2048, out.data(), in_.data()), cudaErrorInvalidConfiguration);
}

TEST_F(Planted, AnUnknownOrderIsAnErrorOfUsage) {
  try {
    run("right", "sideways");
    FAIL() << "accepted";
  } catch (const emulator::Fault& error) {
    EXPECT_STREQ(error.what(), "emulator: EMULATOR_ORDER=sideways: allowed: forward, reversed, random:SEED");
  }
}

}  // namespace
}  // namespace planted
