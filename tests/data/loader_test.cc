#include "data/loader.h"

#include <cmath>
#include <map>
#include <set>

#include "data/fixtures.h"

namespace mhmoe::data {
namespace {

struct Rows {
  Rows(int64_t rows, int64_t length) : tokens(rows * length), targets(rows * length) {}
  std::vector<int32_t> tokens, targets;
};

class Loader : public testing::Test {
 protected:
  static constexpr int64_t kLength = 7;

  // Two shards of 30 and 12 whole sequences; token i of either is i.
  Loader() {
    write_counting_shard(folder_ / "a", tokenizer_, 30 * kLength + 3);
    write_counting_shard(folder_ / "b", tokenizer_, 12 * kLength + 1);
  }
  BatchLoader make(uint64_t seed, double weight_a = 3, double weight_b = 1) {
    const std::vector<Source> sources = {{folder_ / "a", weight_a}, {folder_ / "b", weight_b}};
    return BatchLoader(sources, tokenizer_, kLength, seed);
  }

  TemporaryFolder folder_;
  CountingTokenizer tokenizer_{1000};
};

TEST_F(Loader, SequenceJIsTokensFromJTAndTargetsAreShiftedByOne) {
  const BatchLoader loader = make(1);
  for (int64_t number = 0; number < 100; ++number) {
    Rows row(1, kLength);
    loader.read(number, row.tokens, row.targets);
    const auto at = loader.locate(number);
    for (int64_t t = 0; t < kLength; ++t) {
      EXPECT_EQ(row.tokens[t], at.sequence * kLength + t);
      // Only the last target of a whole shard may be its EOS.
      const bool end = at.source == 1 && at.sequence == 11 && t == kLength - 1;
      EXPECT_EQ(row.targets[t], end ? tokenizer_.eos() : row.tokens[t] + 1);
    }
  }
}

TEST_F(Loader, ReadsTheSameSequencesInWhateverGroups) {
  constexpr int64_t kCount = 600;  // crosses two blocks of the mixture
  const BatchLoader one_by_one = make(5);
  Rows all(kCount, kLength);
  make(5).read(0, all.tokens, all.targets);
  for (const int64_t group : {1, 3, 8, 200}) {
    for (int64_t first = 0; first < kCount; first += group) {
      Rows some(group, kLength);
      one_by_one.read(first, some.tokens, some.targets);
      ASSERT_TRUE(std::equal(some.tokens.begin(), some.tokens.end(), all.tokens.begin() + first * kLength));
      ASSERT_TRUE(std::equal(some.targets.begin(), some.targets.end(), all.targets.begin() + first * kLength));
    }
  }
}

TEST_F(Loader, EveryEpochOfASourceReadsEverySequenceOnceInAnotherOrder) {
  const BatchLoader loader = make(9);
  std::map<std::pair<int32_t, int64_t>, std::vector<int64_t>> order;
  for (int64_t number = 0; number < 1000; ++number) {
    const auto at = loader.locate(number);
    auto& epoch = order[{at.source, at.epoch}];
    EXPECT_TRUE(std::find(epoch.begin(), epoch.end(), at.sequence) == epoch.end());
    epoch.push_back(at.sequence);
  }
  for (int64_t epoch = 0; epoch < 10; ++epoch) {
    ASSERT_EQ((order[{0, epoch}].size()), 30u);
    ASSERT_EQ((order[{1, epoch}].size()), 12u);
    EXPECT_NE((order[{0, epoch}]), (order[{0, epoch + 1}]));
  }
}

TEST_F(Loader, TheOrderDependsOnTheSeed) {
  Rows a(64, kLength), b(64, kLength);
  make(1).read(0, a.tokens, a.targets);
  make(2).read(0, b.tokens, b.targets);
  EXPECT_NE(a.tokens, b.tokens);
}

TEST_F(Loader, AShardWithoutAWholeSequenceIsRefused) {
  write_counting_shard(folder_ / "short", tokenizer_, kLength);
  const std::vector<Source> sources = {{folder_ / "short", 1}};
  expect_error([&] { BatchLoader(sources, tokenizer_, kLength, 1); }, {"short", "7 tokens", "needs 8"});
}

TEST_F(Loader, TheIdentityTellsDataWeightsAndLengthApartButNotPlaceOrSeed) {
  const uint64_t identity = make(1).data_identity();
  EXPECT_EQ(make(2).data_identity(), identity);
  EXPECT_NE(make(1, 3, 2).data_identity(), identity);
  const auto identity_of = [&](const std::string& b, int64_t length) {
    const std::vector<Source> sources = {{folder_ / "a", 3}, {b, 1}};
    return BatchLoader(sources, tokenizer_, length, 1).data_identity();
  };
  EXPECT_NE(identity_of(folder_ / "b", kLength - 1), identity);
  for (const char* suffix : {".bin", ".idx", ".json"}) {
    std::filesystem::copy_file((folder_ / "b") + suffix, (folder_ / "moved") + suffix);
  }
  EXPECT_EQ(identity_of(folder_ / "moved", kLength), identity);
  write_counting_shard(folder_ / "other", tokenizer_, 12 * kLength + 2);
  EXPECT_NE(identity_of(folder_ / "other", kLength), identity);
}

TEST(Mixture, EveryPrefixHoldsEachSourceByItsWeight) {
  const std::vector<double> weights = {0.5, 2.0, 0.001, 7.0, 2.0};
  const double sum = 11.501;
  const Mixture mixture(weights, 3);
  std::vector<int64_t> drawn(weights.size());
  for (int64_t block = 0; block < 300; ++block) {
    for (const auto draw : mixture.block(block)) EXPECT_EQ(draw.occurrence, drawn[draw.source]++);
    for (size_t s = 0; s < weights.size(); ++s) {
      const double expected = static_cast<double>((block + 1) * Mixture::kBlock) * weights[s] / sum;
      EXPECT_NEAR(static_cast<double>(drawn[s]), expected, 2.5) << "source " << s << " after block " << block;
    }
  }
}

TEST(Mixture, ALateBlockContinuesWhereItsForerunnerEnded) {
  const Mixture mixture(std::vector<double>{1, 1, 1, 0.3}, 3);
  for (const int64_t block : {int64_t{1}, int64_t{1000}, int64_t{1} << 32}) {
    std::map<int32_t, int64_t> last;
    for (const auto draw : mixture.block(block - 1)) last[draw.source] = draw.occurrence;
    std::set<int32_t> seen;
    for (const auto draw : mixture.block(block)) {
      if (!seen.insert(draw.source).second) continue;
      EXPECT_EQ(draw.occurrence, last[draw.source] + 1);
    }
    EXPECT_EQ(seen.size(), 4u);
  }
}

TEST(Mixture, TurnsAreShuffledWithinABlock) {
  const Mixture mixture(std::vector<double>{1, 1}, 3);
  int repeats = 0;  // strict alternation would have none; a fair shuffle has about 127 of 255
  const auto draws = mixture.block(4);
  for (size_t i = 1; i < draws.size(); ++i) repeats += draws[i].source == draws[i - 1].source;
  EXPECT_NEAR(repeats, 127, 5 * std::sqrt(255 * 0.25));
}

TEST(Mixture, RefusesWeightsThatAreNotPositiveAndFinite) {
  for (const double weight : std::vector<double>{0, -1, NAN, INFINITY}) {
    expect_error([&] { Mixture(std::vector<double>{1, weight}, 1); }, {"weight", "above 0"});
  }
  expect_error([&] { Mixture({}, 1); }, {"at least one"});
}

TEST(Permutation, IsABijectionForEverySmallSize) {
  for (int64_t size = 1; size < 300; ++size) {
    const Permutation permutation(size, 11, 0, size);
    std::set<int64_t> images;
    for (int64_t i = 0; i < size; ++i) images.insert(permutation(i));
    ASSERT_EQ(static_cast<int64_t>(images.size()), size);
    ASSERT_EQ(*images.begin(), 0);
    ASSERT_EQ(*images.rbegin(), size - 1);
  }
}

// Mean displacement of a uniform permutation is size/3; neighbours must not stay neighbours.
TEST(Permutation, LooksUniform) {
  constexpr int64_t kSize = 10007;
  const Permutation permutation(kSize, 1, 2, 3);
  double displacement = 0;
  int64_t neighbours = 0;
  for (int64_t i = 0; i + 1 < kSize; ++i) {
    displacement += std::abs(static_cast<double>(permutation(i) - i));
    neighbours += permutation(i + 1) == permutation(i) + 1;
  }
  EXPECT_NEAR(displacement / kSize / kSize, 1.0 / 3, 0.02);
  EXPECT_LE(neighbours, 10);
}

TEST(Permutation, DependsOnSeedSourceAndEpoch) {
  const auto order = [](uint64_t seed, int64_t source, int64_t epoch) {
    std::vector<int64_t> images;
    for (int64_t i = 0; i < 50; ++i) images.push_back(Permutation(50, seed, source, epoch)(i));
    return images;
  };
  EXPECT_EQ(order(1, 2, 3), order(1, 2, 3));
  EXPECT_NE(order(1, 2, 3), order(2, 2, 3));
  EXPECT_NE(order(1, 2, 3), order(1, 1, 3));
  EXPECT_NE(order(1, 2, 3), order(1, 2, 4));
}

}  // namespace
}  // namespace mhmoe::data
