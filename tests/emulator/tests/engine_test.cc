// The engine itself: orders, launches, faults.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string>

#include "emulator/fault.h"
#include "emulator/limits.h"
#include "environment.h"
#include "planted.h"

namespace planted {
namespace {

using Values = std::array<float, kOutputs>;

// At the end of every run, so that nobody takes a green one for more than it is.
class Limits : public testing::Environment {
 public:
  void TearDown() override { std::fprintf(stderr, "note: %s\n", emulator::limits()); }
};
[[maybe_unused]] const auto* const kLimits = testing::AddGlobalTestEnvironment(new Limits);

class Engine : public testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < in_.size(); ++i) in_[i] = static_cast<float>(i + 1);
  }

  cudaError_t launch(const Kernel& kernel, const char* order) {
    const WithVariable with_order("EMULATOR_ORDER", order);
    return planted::launch(kernel, out_.data(), in_.data());
  }

  // The message of the fault that ends the kernel; empty if none does.
  std::string fault(const Kernel& kernel, const char* order) {
    try {
      launch(kernel, order);
    } catch (const emulator::Fault& error) {
      return error.what();
    }
    return {};
  }

  void expect_right(const Kernel& kernel, const std::string& what) {
    for (unsigned i = 0; i < kOutputs; ++i) EXPECT_EQ(out_[i], kernel.expected(in_.data(), i)) << what << " " << i;
  }

  alignas(256) std::array<float, kInputs> in_{};
  alignas(256) Values out_{};
};

TEST_F(Engine, WorksOnAfterAFaultThatNamesTheThread) {
  const Kernel& right = kernels().at("right");
  for (const char* order : kOrders) {
    for (const char* kernel : {"divergent_barrier", "barrier_in_a_branch", "divergent_shuffle", "shuffle_after_exit"}) {
      const std::string message = fault(kernels().at(kernel), order);
      EXPECT_NE(message.find("[block 0,0,0 thread "), std::string::npos) << kernel << " " << order << ": " << message;
    }
    EXPECT_EQ(launch(right, order), cudaSuccess);
    expect_right(right, order);
  }
}

TEST_F(Engine, RefusesImpossibleLaunches) {
  Kernel kernel = kernels().at("right");
  for (const unsigned threads : {0u, 1025u, 2048u}) {
    kernel.threads = threads;
    EXPECT_EQ(launch(kernel, "forward"), cudaErrorInvalidConfiguration) << threads;
  }
  kernel = kernels().at("right");
  kernel.dynamic_bytes = (size_t{48} << 10) + 1;
  EXPECT_EQ(launch(kernel, "forward"), cudaErrorInvalidValue) << "more must be asked for";
  kernel = kernels().at("right");
  kernel.blocks = 0;
  EXPECT_EQ(launch(kernel, "forward"), cudaErrorInvalidConfiguration);
}

TEST_F(Engine, NamesTheOrdersItKnows) {
  EXPECT_EQ(fault(kernels().at("right"), "sideways"),
            "emulator: EMULATOR_ORDER=sideways: allowed: forward, reversed, random:SEED");
}

}  // namespace
}  // namespace planted
