// The choice of an id from logits.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <vector>

#include "train/generation.h"

namespace mhmoe::train {
namespace {

// How often each id is taken at positions 0 to 19,999.
std::map<int32_t, double> shares(const std::vector<float>& logits, double temperature, double top_p) {
  constexpr int kDraws = 20000;
  std::map<int32_t, double> taken;
  for (int position = 0; position < kDraws; ++position) {
    taken[sample(logits, {.temperature = temperature, .top_p = top_p, .seed = 9}, position)] += 1.0 / kDraws;
  }
  return taken;
}

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
  return logits;
}

// Four standard deviations of a share of 20,000 draws are below 0.0142.
constexpr double kShareTolerance = 0.0142;

TEST(Sample, SharesFollowTheProbabilities) {
  const auto taken = shares(logits_of({0.5, 0.125, 0.25, 0.125}), 1, 1);
  EXPECT_NEAR(taken.at(0), 0.5, kShareTolerance);
  EXPECT_NEAR(taken.at(1), 0.125, kShareTolerance);
  EXPECT_NEAR(taken.at(2), 0.25, kShareTolerance);
  EXPECT_NEAR(taken.at(3), 0.125, kShareTolerance);
}

TEST(Sample, TemperatureSharpensAndFlattens) {
  const std::vector<float> logits = logits_of({0.8, 0.2});
  EXPECT_NEAR(shares(logits, 0.5, 1).at(0), 16.0 / 17, kShareTolerance);  // ratio 4 squared
  EXPECT_NEAR(shares(logits, 2, 1).at(0), 2.0 / 3, kShareTolerance);      // its root
  EXPECT_EQ(shares(logits, 1e-300, 1).size(), 1u);
  EXPECT_NEAR(shares(logits, 1e6, 1).at(0), 0.5, kShareTolerance);
}

TEST(Sample, TheNucleusIsTheSmallestLikeliestSet) {
  const std::vector<float> logits = logits_of({0.1, 0.4, 0.2, 0.3});
  const auto three = shares(logits, 1, 0.75);
  EXPECT_FALSE(three.contains(0));
  EXPECT_NEAR(three.at(1), 4.0 / 9, kShareTolerance);
  EXPECT_NEAR(three.at(3), 3.0 / 9, kShareTolerance);
  EXPECT_NEAR(three.at(2), 2.0 / 9, kShareTolerance);
  const auto two = shares(logits, 1, 0.65);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two.at(1), 4.0 / 7, kShareTolerance);
  EXPECT_EQ(shares(logits, 1, 1e-9).size(), 1u) << "one id at least";
  EXPECT_EQ(shares(logits, 1, 1).size(), 4u);
}

TEST(Sample, AmongEquallyLikelyIdsTheLowestComesFirst) {
  const std::vector<float> even(6, 0.25f);
  EXPECT_EQ(sample(even, {.temperature = 0}, 0), 0);
  const auto half = shares(even, 1, 0.4);
  EXPECT_EQ(half.size(), 3u);
  for (const int32_t id : {0, 1, 2}) EXPECT_NEAR(half.at(id), 1.0 / 3, kShareTolerance);
  EXPECT_EQ(sample(std::vector<float>{-1, 2, 0, 2}, {.temperature = 0}, 0), 1);
}

TEST(Sample, LogitsThatAreNotFiniteAreRefused) {
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    for (const double temperature : {0.0, 1.0}) {
      try {
        sample(std::vector<float>{0, bad, 1}, {.temperature = temperature}, 41);
        ADD_FAILURE() << "accepted";
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::kNumeric);
        EXPECT_NE(std::string(error.what()).find("41"), std::string::npos) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
