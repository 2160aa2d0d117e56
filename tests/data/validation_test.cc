#include "data/fixtures.h"
#include "data/loader.h"

namespace mhmoe::data {
namespace {

constexpr int64_t kLength = 7;

// Reads the whole set in batches of `rows` and returns how often each token position of the shard was scored, checking
// inputs and targets on the way. Token i of the shard is i, the last one EOS.
std::vector<int> score_counts(const ValidationSet& set, int64_t shard_tokens, int64_t rows, int32_t eos) {
  std::vector<int> counts(shard_tokens);
  std::vector<int32_t> tokens(rows * kLength), targets(rows * kLength);
  for (int64_t first = 0; first < set.sequences(); first += rows) {
    set.read(first, tokens, targets);
    for (int64_t i = 0; i < rows * kLength; ++i) {
      if (targets[i] == -1) {
        EXPECT_EQ(tokens[i], eos);
        continue;
      }
      const int64_t position = targets[i] == eos ? shard_tokens - 1 : targets[i];
      EXPECT_EQ(tokens[i], position - 1);
      EXPECT_EQ(position - 1, first * kLength + i);
      ++counts[position];
    }
  }
  return counts;
}

TEST(ValidationSet, ScoresEveryTargetExactlyOnceWhateverTheLengthAndBatch) {
  const TemporaryFolder folder;
  const CountingTokenizer tokenizer(1000);
  for (int64_t tokens = 2; tokens < 40; ++tokens) {
    write_counting_shard(folder / "v", tokenizer, tokens);
    const ValidationSet set(folder / "v", tokenizer, kLength, 1000000);
    EXPECT_EQ(set.targets(), tokens - 1);
    std::vector<int> once(tokens, 1);
    once[0] = 0;  // the first token of the set has nothing before it
    for (const int64_t rows : {1, 2, 5}) EXPECT_EQ(score_counts(set, tokens, rows, tokenizer.eos()), once);
  }
}

TEST(ValidationSet, ScoresTheFirstTargetsWhereTheBudgetIsSmaller) {
  const TemporaryFolder folder;
  const CountingTokenizer tokenizer(1000);
  write_counting_shard(folder / "v", tokenizer, 100);
  for (const int64_t budget : {1, 7, 8, 20, 99, 100}) {
    const ValidationSet set(folder / "v", tokenizer, kLength, budget);
    EXPECT_EQ(set.targets(), std::min<int64_t>(budget, 99));
    std::vector<int> counts(100);
    int64_t bytes = 0;
    for (int64_t i = 1; i <= set.targets(); ++i) {
      counts[i] = 1;
      bytes += i == 99 ? 0 : i % 5;
    }
    EXPECT_EQ(score_counts(set, 100, 3, tokenizer.eos()), counts);
    EXPECT_EQ(set.utf8_bytes(), bytes);
  }
}

TEST(ValidationSet, BytesAreThoseOfTheTextWithoutItsFirstPiece) {
  const TemporaryFolder folder;
  const auto tokenizer = load_tokenizer("bytes");
  const std::string text = "na\xc3\xafve\n";
  std::vector<int32_t> ids;
  tokenizer->encode(text, ids);
  ShardWriter writer(folder / "v", *tokenizer);
  for (int i = 0; i < 1000; ++i) writer.add_document(ids, static_cast<int64_t>(text.size()));
  const ShardInfo info = writer.finish();
  EXPECT_EQ(ValidationSet(folder / "v", *tokenizer, kLength, 1000000).utf8_bytes(), info.utf8_bytes - 1);
}

TEST(ValidationSet, RowsPastTheEndArePadding) {
  const TemporaryFolder folder;
  const CountingTokenizer tokenizer(1000);
  write_counting_shard(folder / "v", tokenizer, 10);
  const ValidationSet set(folder / "v", tokenizer, kLength, 1000);
  std::vector<int32_t> tokens(2 * kLength), targets(2 * kLength);
  set.read(set.sequences(), tokens, targets);
  EXPECT_EQ(tokens, std::vector<int32_t>(2 * kLength, tokenizer.eos()));
  EXPECT_EQ(targets, std::vector<int32_t>(2 * kLength, -1));
}

TEST(ValidationSet, ASetWithoutATargetIsRefused) {
  const TemporaryFolder folder;
  const CountingTokenizer tokenizer(1000);
  write_counting_shard(folder / "v", tokenizer, 1);
  expect_error([&] { ValidationSet(folder / "v", tokenizer, kLength, 10); }, {"1 tokens", "needs 2"});
}

}  // namespace
}  // namespace mhmoe::data
