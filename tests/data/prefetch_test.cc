#include "data/prefetch.h"

#include "data/fixtures.h"

namespace mhmoe::data {
namespace {

constexpr int64_t kLength = 7;

class Prefetch : public testing::Test {
 protected:
  Prefetch() { write_counting_shard(folder_ / "a", tokenizer_, 40 * kLength + 1); }
  BatchLoader make() const {
    const std::vector<Source> sources = {{folder_ / "a", 1}};
    return BatchLoader(sources, tokenizer_, kLength, 3);
  }
  struct Batch {
    explicit Batch(int64_t rows) : tokens(rows * kLength), targets(rows * kLength) {}
    bool operator==(const Batch&) const = default;
    std::vector<int32_t> tokens, targets;
  };

  TemporaryFolder folder_;
  CountingTokenizer tokenizer_{1000};
};

TEST_F(Prefetch, GivesWhatTheLoaderGivesWhateverTheOrderOfCalls) {
  const BatchLoader loader = make();
  PrefetchingLoader ahead(loader);
  // Runs of batches: on from there, back, far ahead, the same again, other sizes.
  const std::vector<std::array<int64_t, 3>> runs = {{0, 4, 9},    {4, 4, 3}, {1000, 4, 5}, {1016, 2, 1},
                                                    {1018, 6, 4}, {0, 1, 1}, {0, 1, 1},    {3, 8, 2}};
  for (const auto& [first, rows, batches] : runs) {
    for (int64_t at = first; at < first + rows * batches; at += rows) {
      Batch expected(rows), found(rows);
      loader.read(at, expected.tokens, expected.targets);
      ahead.read(at, found.tokens, found.targets);
      ASSERT_EQ(found, expected) << "at " << at;
    }
  }
}

TEST_F(Prefetch, StopsAtAnyMoment) {
  const BatchLoader loader = make();
  { const PrefetchingLoader never_used(loader); }
  Batch batch(4);
  for (int64_t reads = 1; reads < 60; ++reads) {
    PrefetchingLoader ahead(loader);
    for (int64_t i = 0; i < reads % 5 + 1; ++i) ahead.read(i * 4, batch.tokens, batch.targets);
  }
}

TEST_F(Prefetch, AnErrorComesWithTheBatchThatHasItAndAgainWhenAskedAgain) {
  const BatchLoader loader = make();
  PrefetchingLoader ahead(loader);
  Batch batch(1);
  ahead.read(0, batch.tokens, batch.targets);
  std::filesystem::resize_file(folder_ / "a.bin", 2);
  int64_t good = 1;  // batches read ahead before the file was cut are given
  try {
    for (; good < 10; ++good) ahead.read(good, batch.tokens, batch.targets);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kIo);
  }
  EXPECT_LE(good, 4);
  for (const int64_t first : {good, good, int64_t{0}}) {
    expect_error([&] { ahead.read(first, batch.tokens, batch.targets); }, {"a.bin"}, ExitCode::kIo);
  }
}

}  // namespace
}  // namespace mhmoe::data
