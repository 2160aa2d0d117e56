#include "train/console.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/log.h"

namespace mhmoe::train {
namespace {

Record example() {
  return {.step = 1200,
          .tokens = 0,
          .flops = 0,
          .seconds = 0,
          .train = TrainRecord{.loss = 4.8121,
                               .gradient_norm = 0.84,
                               .learning_rate = 6e-4,
                               .moe = {.balance_loss = 1.04, .load_max_over_mean = 1.21, .dropped_fraction = 0.003},
                               .tokens_per_second = 12400,
                               .waiting_share = {},
                               .mfu = 0.61},
          .validation = {}};
}

TEST(Console, LineHasEveryColumn) {
  EXPECT_EQ(train_line(example(), 100000, true, 4361),
            "step   1200/100000 | loss 4.8121 ppl 122.99 | balance 1.04 | lr 6.0e-04 | grad 0.84 | load max/mean 1.21 "
            "dropped 0.3% | 12.4k tok/s 61% of peak | eta 1:12:41");
}

TEST(Console, WhatIsNotKnownIsLeftOut) {
  Record record = example();
  record.train->tokens_per_second.reset();
  record.train->mfu.reset();
  EXPECT_EQ(train_line(record, 2000, false, std::nullopt),
            "step 1200/2000 | loss 4.8121 ppl 122.99 | lr 6.0e-04 | grad 0.84");
}

TEST(Console, CountsAndDurationsAreShort) {
  EXPECT_EQ(short_count(870), "870");
  EXPECT_EQ(short_count(12400), "12.4k");
  EXPECT_EQ(short_count(1240000), "1.24M");
  EXPECT_EQ(duration(0.4), "0:00");
  EXPECT_EQ(duration(245), "4:05");
  EXPECT_EQ(duration(4361), "1:12:41");
}

StepResult result_of(int64_t step, double loss, bool refused = false) {
  StepResult result;
  result.step = step;
  result.loss = loss;
  if (refused) result.refusal = Refusal::kNotFinite;
  result.moe.balance_loss = loss;
  return result;
}

TEST(StepWindow, AveragesLossesAndLeavesOutRefusedStepsAndTheFirstTime) {
  StepWindow window(10, [] { return 1000.0; });
  window.add(result_of(1, 4), 100, 50, false);
  EXPECT_FALSE(window.take().tokens_per_second.has_value());
  window.add(result_of(2, 4), 100, 1, true);
  window.add(result_of(3, std::nan(""), true), 100, 1, true);
  window.add(result_of(4, 2), 100, 2, true);
  const TrainRecord record = window.take();
  EXPECT_DOUBLE_EQ(record.loss, 3);
  EXPECT_DOUBLE_EQ(record.moe.balance_loss, 3);
  EXPECT_DOUBLE_EQ(record.perplexity(), std::exp(3.0));
  EXPECT_DOUBLE_EQ(*record.tokens_per_second, 75);
  EXPECT_DOUBLE_EQ(*record.mfu, 0.75);
}

TEST(StepWindow, ThePeakIsMeasuredOnceAndOnlyForASpeed) {
  int measured = 0;
  StepWindow window(10, [&] { return ++measured * 1000.0; });
  window.add(result_of(1, 4), 100, 50, false);
  window.take();
  EXPECT_EQ(measured, 0);
  for (int step = 2; step <= 3; ++step) {
    window.add(result_of(step, 4), 50, 1, true);
    EXPECT_DOUBLE_EQ(window.take().mfu.value(), 0.5);
    EXPECT_EQ(measured, 1);
  }
}

TEST(StepWindow, APeakThatCannotBeMeasuredIsAWarning) {
  int tried = 0;
  StepWindow window(10, [&]() -> double {
    ++tried;
    fail(ExitCode::kMemory, "no memory for products");
  });
  const int64_t warnings = log::lines(log::Level::kWarning);
  for (int step = 2; step <= 4; ++step) {
    window.add(result_of(step, 4), 50, 1, true);
    const TrainRecord record = window.take();
    EXPECT_FALSE(record.mfu.has_value());
    EXPECT_DOUBLE_EQ(*record.tokens_per_second, 50);
  }
  EXPECT_EQ(tried, 1);
  EXPECT_EQ(log::lines(log::Level::kWarning), warnings + 1);
}

// The peak is measured once, perhaps while other programs held the machine.
TEST(StepWindow, ShareOfAPeakThatAStepExceedsIsLeftOut) {
  StepWindow window(10, [] { return 1000.0; });
  window.add(result_of(2, 4), 100, 1, true);
  EXPECT_DOUBLE_EQ(window.take().mfu.value(), 1.0);
  window.add(result_of(3, 4), 101, 1, true);
  const TrainRecord record = window.take();
  EXPECT_FALSE(record.mfu.has_value());
  EXPECT_DOUBLE_EQ(*record.tokens_per_second, 101);
}

}  // namespace
}  // namespace mhmoe::train
