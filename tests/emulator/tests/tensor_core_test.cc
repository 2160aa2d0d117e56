// Tensor cores' instructions and asynchronous copies do what the PTX ISA says, and planted mistakes in their use are
// found (tensor_core_kernels.cu).
#include <gtest/gtest.h>

#include <array>

#include "emulator/fault.h"
#include "environment.h"
#include "planted.h"

namespace planted {
namespace {

using Values = std::array<float, 128>;

constexpr const char* kRacesElsewhere = "ThreadSanitizer finds races, in processes of their own: planted_test.cc";

class TensorCore : public testing::Test {
 protected:
  void SetUp() override {
    for (size_t i = 0; i < in_.size(); ++i) in_[i] = static_cast<float>(i * 37 % 29) - 14;  // sums are exact
  }

  Values run(const char* kernel, const char* order, const char* mode = "wait") {
    const WithVariable with_order("EMULATOR_ORDER", order), with_mode("EMULATOR_CP_ASYNC", mode);
    alignas(16) Values out{};
    EXPECT_EQ(launch(tensor_core_kernels().at(kernel), out.data(), in_.data()), cudaSuccess);
    return out;
  }

  // The message of the fault that ends the kernel; empty if none does.
  std::string fault(const char* kernel, const char* order, const char* mode = "wait") {
    try {
      run(kernel, order, mode);
    } catch (const emulator::Fault& error) {
      return error.what();
    }
    return {};
  }

  // What the kernels of the pipeline compute.
  Values pipeline_sums() const {
    Values sums{};
    for (size_t t = 0; t < 128; ++t) {
      for (const size_t tile : {0, 1, 3, 4}) sums[t] += in_[tile * 512 + (t + 37) % 128 * 4];
    }
    return sums;
  }

  // out [16, 8] = a b, a and b as the kernel's variant stores them.
  Values product(bool transposed_a, bool transposed_b) const {
    Values out{};
    const float *a = in_.data(), *b = in_.data() + 256;
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 8; ++j) {
        for (int k = 0; k < 16; ++k) {
          out[i * 8 + j] +=
              (transposed_a ? a[k * 16 + i] : a[i * 16 + k]) * (transposed_b ? b[k * 8 + j] : b[j * 16 + k]);
        }
      }
    }
    return out;
  }

  alignas(16) std::array<float, 5 * 512> in_{};
};

TEST_F(TensorCore, ProductsOfAWarpInEveryLayoutAndOrder) {
  for (const char* order : kOrders) {
    EXPECT_EQ(run("product", order), product(false, false)) << order;
    EXPECT_EQ(run("product_transposed_a", order), product(true, false)) << order;
    EXPECT_EQ(run("product_transposed_b", order), product(false, true)) << order;
  }
}

TEST_F(TensorCore, CopiesArriveInBothModesAndEveryOrder) {
  for (const char* order : kOrders) {
    for (const char* mode : {"wait", "issue"})
      EXPECT_EQ(run("pipeline", order, mode), pipeline_sums()) << order << mode;
  }
}

TEST_F(TensorCore, AWaitThatIsTooWeakShowsWhenCopiesAreDoneLate) {
  if (kBuild == Build::kThreadSanitizer) GTEST_SKIP() << kRacesElsewhere;
  for (const char* order : kOrders) {
    for (const char* kernel : {"weak_wait", "no_wait", "no_commit"}) {
      const std::string message = fault(kernel, order);
      EXPECT_TRUE(!message.empty() || run(kernel, order) != pipeline_sums()) << kernel << " " << order;
    }
  }
}

TEST_F(TensorCore, AMissingBarrierOfATileLoopShows) {
  if (kBuild == Build::kThreadSanitizer) GTEST_SKIP() << kRacesElsewhere;
  for (const char* order : kOrders) {
    for (const char* mode : {"wait", "issue"}) {
      EXPECT_NE(run("no_trailing_barrier", order, mode), pipeline_sums()) << order << mode;
    }
    EXPECT_NE(run("no_leading_barrier", order), pipeline_sums()) << order;
  }
}

TEST_F(TensorCore, MisuseIsAFaultThatSaysWhat) {
  const std::pair<const char*, const char*> faults[] = {
      {"misaligned_copy", "cp.async: the source is not aligned to 16 bytes [block 0,0,0 thread 3,0,0"},
      {"copy_to_global", "cp.async: the target is not in shared memory"},
      {"abandoned_copy", "a thread exits before cp.async copies that it never waited for"},
      {"misaligned_ldmatrix", "ldmatrix: a row is not aligned to 16 bytes [block 0,0,0 thread 9,0,0"},
      {"divergent_instructions", "divergent warp instructions: lanes 0 and 16"},
      {"product_part_of_a_warp", "names lanes that exited"},
  };
  for (const char* order : kOrders) {
    for (const auto& [kernel, text] : faults) {
      const std::string message = fault(kernel, order);
      EXPECT_NE(message.find(text), std::string::npos) << kernel << " " << order << ": " << message;
    }
    EXPECT_EQ(run("pipeline", order), pipeline_sums()) << "the engine works on after a fault";
  }
}

TEST_F(TensorCore, AnUnknownModeIsRefused) {
  EXPECT_EQ(fault("pipeline", "forward", "never"), "emulator: EMULATOR_CP_ASYNC=never: allowed: wait, issue");
}

}  // namespace
}  // namespace planted
