#include "plan/machine_speed.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "cpu/backend.h"
#include "plan/synthetic_text.h"
#include "train/peak.h"
#include "train/run_config.h"

namespace mhmoe::plan {
namespace {

TEST(MachineSpeed, EveryLoopIsTimed) {
  const std::vector<MemorySpeed> speeds = measure_memory(cpu::backend(), int64_t{1} << 20, 0);
  ASSERT_EQ(speeds.size(), 4u);
  for (const MemorySpeed& speed : speeds) {
    EXPECT_EQ(speed.runs, 2) << speed.loop;
    EXPECT_GE(speed.best, speed.median) << speed.loop;
    EXPECT_GT(speed.median, 1e6) << speed.loop;
  }
}

TEST(MachineSpeed, EveryProductIsTimedInEveryRound) {
  const std::vector<train::Product> products = {{64, 64, 64}, {32, 48, 80, true}};
  for (const train::ProductSpeed& speed : train::measure_products(cpu::backend(), DType::kF32, products, 0, 3)) {
    EXPECT_EQ(speed.runs, 3);
    EXPECT_GE(speed.best, speed.median);
    EXPECT_GT(speed.median, 0);
  }
}

TEST(MachineSpeed, PeakIsMeasuredInBothPrecisions) {
  for (const DType compute : {DType::kF32, DType::kBF16}) {
    EXPECT_GT(train::measure_matmul_peak(cpu::backend(), compute), 1e6) << train::precision_name(compute);
  }
}

TEST(SyntheticText, IsReproducibleAndLikeEnglish) {
  const std::string text = synthetic_corpus(1, 100'000);
  EXPECT_EQ(text, synthetic_corpus(1, 100'000));
  EXPECT_NE(text, synthetic_corpus(2, 100'000));
  EXPECT_GE(text.size(), 100'000u);
  EXPECT_EQ(text.find("{\"text\": \""), 0u);
  EXPECT_TRUE(text.ends_with("\"}\n"));
  const auto spaces = static_cast<double>(std::count(text.begin(), text.end(), ' '));
  const double word = static_cast<double>(text.size()) / spaces;
  EXPECT_GT(word, 4);
  EXPECT_LT(word, 8);
}

}  // namespace
}  // namespace mhmoe::plan
