// Damage to a shard that `mhmoe prepare` wrote: none goes unnoticed.
#include "data/fixtures.h"
#include "data/loader.h"

namespace mhmoe::data {
namespace {

class ShardDamage : public testing::Test {
 protected:
  void write(int64_t tokens) { write_counting_shard(folder_ / "s", tokenizer_, tokens); }
  void expect_found(const std::vector<std::string>& parts, ExitCode code = ExitCode::kBadData) {
    expect_error([&] { read_all(Shard(folder_ / "s", tokenizer_)); }, parts, code);
  }

  TemporaryFolder folder_;
  CountingTokenizer tokenizer_{60000};
};

TEST_F(ShardDamage, EveryFlippedBitIsFoundInTheFileThatHasIt) {
  ShardWriter writer(folder_ / "s", tokenizer_);
  for (int document = 0; document < 3; ++document) writer.add_document(std::vector<int32_t>(9, document), 20);
  writer.finish();
  for (const std::string name : {"s.bin", "s.idx", "s.json"}) {
    const std::string good = read_file(folder_ / name);
    for (size_t bit = 0; bit < good.size() * 8; ++bit) {
      std::string bad = good;
      bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
      write_file(folder_ / name, bad);
      expect_found({name, name == "s.bin" ? "block 0" : "s."});
      if (testing::Test::HasFailure()) FAIL() << name << " bit " << bit;
    }
    write_file(folder_ / name, good);
  }
  read_all(Shard(folder_ / "s", tokenizer_));
}

TEST_F(ShardDamage, EveryTruncationIsFoundWhenTheShardIsOpened) {
  ShardWriter writer(folder_ / "s", tokenizer_);
  for (int document = 0; document < 40; ++document) writer.add_document(std::vector<int32_t>(24, document), 20);
  writer.finish();
  for (const std::string name : {"s.bin", "s.idx", "s.json"}) {
    const std::string good = read_file(folder_ / name);
    for (size_t length = 0; length < good.size(); ++length) {
      write_file(folder_ / name, good.substr(0, length));
      expect_error([&] { Shard(folder_ / "s", tokenizer_); }, {name}, ExitCode::kBadData);
    }
    write_file(folder_ / name, good);
  }
}

TEST_F(ShardDamage, TheBlockIsNamedAndTheOthersCanBeRead) {
  constexpr int64_t kTokens = (5 << 19) + 1000;  // uint16: blocks 0 to 5, the last one short
  const CountingTokenizer tokenizer(60000);
  ShardWriter writer(folder_ / "s", tokenizer);
  writer.add_document(std::vector<int32_t>(kTokens - 1, 7), 1);
  writer.finish();
  std::string bytes = read_file(folder_ / "s.bin");
  for (const size_t at : {size_t{0}, (size_t{3} << 20) - 1, bytes.size() - 1}) {
    std::string bad = bytes;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    write_file(folder_ / "s.bin", bad);
    const Shard shard(folder_ / "s", tokenizer);
    std::vector<int32_t> id(1);
    for (int64_t block = 0; block < 6; ++block) {
      const auto read = [&] { shard.read(block << 19, id); };
      if (static_cast<size_t>(block) != at >> 20) {
        read();
        continue;
      }
      const std::string place = fmt::format("block {}, bytes {} to", block, block << 20);
      expect_error(read, {"s.bin", place}, ExitCode::kBadData);
      expect_error(read, {"s.bin", place}, ExitCode::kBadData);  // a bad block stays bad
    }
  }
}

TEST_F(ShardDamage, AnIdOutsideTheVocabularyIsNamedInEveryBlock) {
  constexpr int64_t kTokens = int64_t{5} << 19;
  const CountingTokenizer smaller(100);  // the same hash
  for (const int64_t at : {int64_t{0}, kTokens / 2, kTokens - 2}) {
    std::vector<int32_t> ids(kTokens - 1, 7);
    ids[at] = 100;
    ShardWriter writer(folder_ / "s", tokenizer_);
    writer.add_document(ids, 1);
    writer.finish();
    const Shard shard(folder_ / "s", smaller);
    std::vector<int32_t> out(kTokens - 1);
    expect_error([&] { shard.read(0, out); },
                 {"s.bin", fmt::format("offset {}:", at * 2), "id 100", "vocabulary of 100"}, ExitCode::kBadData);
  }
}

TEST_F(ShardDamage, EmptySetsAreRefusedWithTheirCounts) {
  write_file(folder_ / "s.idx", "");
  write_file(folder_ / "s.bin", "");
  expect_found({"s.idx", "offset 0", "34 bytes"});
  ShardWriter(folder_ / "s", tokenizer_).finish();
  const std::vector<Source> sources = {{folder_ / "s", 1}};
  expect_error([&] { BatchLoader(sources, tokenizer_, 8, 1); }, {"s: 0 tokens", "needs 9"}, ExitCode::kBadData);
  expect_error([&] { ValidationSet(folder_ / "s", tokenizer_, 8, 10); }, {"s: 0 tokens", "needs 2"},
               ExitCode::kBadData);
}

// Blocks 1 and 2 of 6 are damaged. Token i of the shard is i modulo 50000.
class BadBlocks : public ShardDamage {
 protected:
  static constexpr int64_t kLength = 1000, kTokens = (5 << 19) + 5000;
  BadBlocks() {
    std::vector<int32_t> ids(kTokens - 1);
    for (int64_t i = 0; i < kTokens - 1; ++i) ids[i] = static_cast<int32_t>(i % 50000);
    ShardWriter writer(folder_ / "s", tokenizer_);
    writer.add_document(ids, 1);
    writer.finish();
    damage({1 << 20, (3 << 20) - 1});
  }
  void damage(const std::vector<int64_t>& places) {
    std::string bytes = read_file(folder_ / "s.bin");
    for (const int64_t at : places) bytes[at] = static_cast<char>(bytes[at] ^ 64);
    write_file(folder_ / "s.bin", bytes);
  }
  BatchLoader make(OnBadBlock on_bad_block) {
    const std::vector<Source> sources = {{folder_ / "s", 1}};
    return BatchLoader(sources, tokenizer_, kLength, 5, on_bad_block);
  }
  std::vector<int32_t> read(const BatchLoader& loader, int64_t first, int64_t rows) {
    std::vector<int32_t> tokens(rows * kLength), targets(rows * kLength);
    loader.read(first, tokens, targets);
    return tokens;
  }
};

TEST_F(BadBlocks, SkippedSequencesAreReplacedByTheNextGoodOneWhereverReadingBegins) {
  const BatchLoader loader = make(OnBadBlock::kSkip);
  constexpr int64_t kCount = 600;
  const int64_t first_bad = (1 << 19) / kLength, after_bad = (3 << 19) / kLength + 1;  // sequences with such tokens
  const std::vector<int32_t> all = read(loader, 0, kCount);
  int replaced = 0;
  for (int64_t number = 0; number < kCount; ++number) {
    int64_t sequence = loader.locate(number).sequence;
    const bool bad = sequence >= first_bad && sequence < after_bad;
    if (bad) sequence = after_bad;
    replaced += bad;
    ASSERT_EQ(all[number * kLength], sequence * kLength % 50000) << number;
  }
  EXPECT_GT(replaced, 100);
  EXPECT_EQ(loader.bad_blocks(), 2);
  const BatchLoader resumed = make(OnBadBlock::kSkip);
  EXPECT_TRUE(std::equal(all.begin() + 300 * kLength, all.end(), read(resumed, 300, kCount - 300).begin()));
}

TEST_F(BadBlocks, StopTheRunUnlessTheyAreToBeSkippedAndSomeAreGood) {
  expect_error([&] { read(make(OnBadBlock::kStop), 0, 600); }, {"s.bin: block "}, ExitCode::kBadData);
  damage({0, (3 << 20) + 1, 4 << 20, 5 << 20});
  expect_error([&] { read(make(OnBadBlock::kSkip), 0, 1); }, {"s.bin: block "}, ExitCode::kBadData);
}

// A file that changes under the loader: an error that a scheduler can tell from bad data, never SIGBUS.
class ChangedShard : public ShardDamage {
 protected:
  ChangedShard() {
    write(kTokens);
    shard_ = std::make_unique<Shard>(folder_ / "s", tokenizer_);
    shard_->read(0, ids_);
  }
  void expect_noticed() {
    for (const int64_t begin : {int64_t{0}, kTokens - 8}) {
      expect_error([&] { shard_->read(begin, ids_); }, {"s.bin", "changed"}, ExitCode::kIo);
    }
  }
  static constexpr int64_t kTokens = 50000;
  std::unique_ptr<Shard> shard_;
  std::vector<int32_t> ids_ = std::vector<int32_t>(8);
};

TEST_F(ChangedShard, TruncatedIsNoticed) {
  for (const int64_t bytes : {int64_t{99998}, int64_t{5000}, int64_t{0}}) {
    std::filesystem::resize_file(folder_ / "s.bin", bytes);
    expect_noticed();
  }
}

TEST_F(ChangedShard, ReplacedIsNoticed) {
  std::filesystem::copy_file(folder_ / "s.bin", folder_ / "other");
  std::filesystem::rename(folder_ / "other", folder_ / "s.bin");
  expect_noticed();
}

TEST_F(ChangedShard, RemovedIsNoticed) {
  std::filesystem::remove(folder_ / "s.bin");
  expect_noticed();
}

TEST_F(ChangedShard, OverwrittenInPlaceIsNoticed) {
  std::fstream(folder_ / "s.bin", std::ios::in | std::ios::out | std::ios::binary).seekp(70000).put('x');
  expect_noticed();
}

}  // namespace
}  // namespace mhmoe::data
