#include "data/shards.h"

#include "core/log.h"
#include "data/fixtures.h"
#include "data/sealed_json.h"

namespace mhmoe::data {
namespace {

// A .idx written by hand from the format's description: two documents of 2 and 3 uint16 tokens.
std::string index_by_hand() {
  Bytes index;
  index.add(std::string("MMIDIDX\0\0", 9)).add(8, 1).add(1, 8).add(8, 2).add(8, 3);  // magic, version, uint16, counts
  for (const int size : {2, 3}) index.add(4, size);
  for (const int pointer : {0, 4}) index.add(8, pointer);
  for (const int document : {0, 1, 2}) index.add(8, document);
  return index.text();
}

std::string tokens_by_hand() {
  return {"\x05\0\x09\0\x01\x01\x02\0\x09\0", 10};
}  // 5 9 | 257 2 9

class Shards : public testing::Test {
 protected:
  std::string write(std::string index, const std::string& tokens) {
    write_file(folder_ / "s.idx", index);
    write_file(folder_ / "s.bin", tokens);
    return folder_ / "s";
  }
  void expect_rejected(const std::string& index, const std::string& tokens, const std::vector<std::string>& parts) {
    const std::string prefix = write(index, tokens);
    expect_error([&] { Shard(prefix, tokenizer_); }, parts);
  }
  std::string patched(size_t offset, const std::string& bytes) {
    return index_by_hand().replace(offset, bytes.size(), bytes);
  }

  TemporaryFolder folder_;
  CountingTokenizer tokenizer_{300};
};

TEST_F(Shards, ReadsAShardWrittenByHand) {
  const Shard shard(write(index_by_hand(), tokens_by_hand()), tokenizer_);
  EXPECT_EQ(shard.token_count(), 5);
  EXPECT_EQ(shard.document_count(), 2);
  EXPECT_FALSE(shard.info().has_value());
  std::vector<int32_t> ids(5);
  shard.read(0, ids);
  EXPECT_EQ(ids, (std::vector<int32_t>{5, 9, 257, 2, 9}));
}

TEST_F(Shards, WriterGivesTheBytesWrittenByHand) {
  class NineIsEos : public CountingTokenizer {
   public:
    NineIsEos() : CountingTokenizer(300) { eos_ = 9; }
  } tokenizer;
  ShardWriter writer(folder_ / "w", tokenizer);
  writer.add_document(std::vector<int32_t>{5}, 3);
  writer.add_document(std::vector<int32_t>{257, 2}, 4);
  const ShardInfo info = writer.finish();
  EXPECT_EQ(read_file(folder_ / "w.idx"), index_by_hand());
  EXPECT_EQ(read_file(folder_ / "w.bin"), tokens_by_hand());
  EXPECT_EQ(info.tokens, 5);
  EXPECT_EQ(info.utf8_bytes, 7);
}

TEST_F(Shards, RoundTripsNarrowAndWideIdsAndEmptyDocuments) {
  for (const int64_t vocab_size : {65499, 65500, 200000}) {
    const CountingTokenizer tokenizer(vocab_size);
    const std::string prefix = folder_ / fmt::format("v{}", vocab_size);
    const auto last = static_cast<int32_t>(vocab_size - 2);
    ShardWriter writer(prefix, tokenizer);
    writer.add_document({}, 0);
    writer.add_document(std::vector<int32_t>{0, last}, 2);
    writer.add_document({}, 0);
    writer.finish();
    EXPECT_EQ(std::filesystem::file_size(prefix + ".bin"), vocab_size < 65500 ? 10u : 20u);

    const Shard shard(prefix, tokenizer);
    std::vector<int32_t> ids(5);
    shard.read(0, ids);
    EXPECT_EQ(ids, (std::vector<int32_t>{tokenizer.eos(), 0, last, tokenizer.eos(), tokenizer.eos()}));
    EXPECT_EQ(shard.document_count(), 3);
    EXPECT_EQ(shard.info()->utf8_bytes, 2);
    EXPECT_EQ(shard.info()->vocab_size, vocab_size);
  }
}

TEST_F(Shards, AnUnfinishedWriterLeavesNothing) {
  {
    ShardWriter writer(folder_ / "deep/w", tokenizer_);
    writer.add_document(std::vector<int32_t>{1, 2, 3}, 3);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "deep"));
}

TEST_F(Shards, MissingFilesAreNamed) {
  expect_error([&] { Shard(folder_ / "none", tokenizer_); }, {"none.idx", "mhmoe prepare"});
  write_file(folder_ / "half.idx", index_by_hand());
  expect_error([&] { Shard(folder_ / "half", tokenizer_); }, {"half.bin"});
}

TEST_F(Shards, EveryTruncationIsRejected) {
  const std::string index = index_by_hand();
  for (size_t length = 0; length < index.size(); ++length) {
    expect_rejected(index.substr(0, length), tokens_by_hand(), {"s.idx", "offset"});
  }
  expect_rejected(index + '\0', tokens_by_hand(), {"s.idx", "offset 18"});
  expect_rejected(index, tokens_by_hand().substr(0, 9), {"s.bin", "9 bytes", "expected 10"});
  expect_rejected(index, tokens_by_hand() + "xx", {"s.bin", "12 bytes", "expected 10"});
}

TEST_F(Shards, EveryWrongFieldIsRejectedWithItsOffset) {
  const std::string tokens = tokens_by_hand();
  expect_rejected(patched(0, "X"), tokens, {"s.idx: offset 0", "MMIDIDX"});
  expect_rejected(patched(9, "\x02"), tokens, {"offset 9", "version 1, found 2"});
  expect_rejected(patched(17, "\x06"), tokens, {"offset 17", "uint16", "int32", "found 6"});
  expect_rejected(patched(18, std::string(8, '\x7f')), tokens, {"offset 18"});
  expect_rejected(patched(18, std::string(8, '\xff')), tokens, {"offset 18"});
  expect_rejected(patched(26, std::string(8, '\x7f')), tokens, {"offset 26"});
  expect_rejected(patched(26, std::string(8, '\0')), tokens, {"offset 26"});
  expect_rejected(patched(34, std::string(4, '\xff')), tokens, {"s.idx", "sequence 0", "-1 tokens"});
  expect_rejected(patched(38, "\x04"), tokens, {"s.bin", "10 bytes", "expected 12"});
  expect_rejected(patched(50, "\x06"), tokens, {"offset 50", "sequence 1", "byte 6, expected byte 4"});
  expect_rejected(patched(58, "\x01"), tokens, {"offset 58", "entry 0"});
  expect_rejected(patched(66, "\x03"), tokens, {"offset 66", "entry 1"});
  expect_rejected(patched(74, "\x01"), tokens, {"offset 74", "entry 2"});
}

TEST_F(Shards, IdsOutsideTheVocabularyAreRejectedWhenRead) {
  const CountingTokenizer small(257);
  const Shard shard(write(index_by_hand(), tokens_by_hand()), small);
  std::vector<int32_t> ids(2);
  shard.read(0, ids);
  expect_error([&] { shard.read(1, ids); }, {"s.bin", "offset 4", "257", "vocabulary of 257"});
}

TEST_F(Shards, AnotherTokenizerOrAStaleDescriptionIsRejected) {
  write_counting_shard(folder_ / "c", tokenizer_, 20);
  expect_error([&] { Shard(folder_ / "c", CountingTokenizer(300, 8)); },
               {"c.json", "another tokenizer", "hash 0000000000000007", "hash 0000000000000008"}, ExitCode::kBadData);
  write_counting_shard(folder_ / "d", tokenizer_, 21);
  const auto overwrite = std::filesystem::copy_options::overwrite_existing;
  std::filesystem::copy_file(folder_ / "d.json", folder_ / "c.json", overwrite);
  expect_error([&] { Shard(folder_ / "c", tokenizer_); }, {"c.json", "21 tokens", "20"}, ExitCode::kBadData);
  write_file(folder_ / "c.json", "{\"tokens\": 3}");
  expect_error([&] { Shard(folder_ / "c", tokenizer_); }, {"c.json", "checksum", "prepare"}, ExitCode::kBadData);
}

TEST_F(Shards, ADescriptionOfALaterFormatIsRefusedWithBothVersions) {
  write_counting_shard(folder_ / "c", tokenizer_, 20);
  json::Value object = unseal(read_file(folder_ / "c.json"), "c.json", "");
  object.items.pop_back();  // the checksum
  *object.find("format_version") = json::Value(2);
  object.items.front().key = "format_version";
  write_file(folder_ / "c.json", seal(object));
  expect_error([&] { Shard(folder_ / "c", tokenizer_); }, {"c.json", "version 2", "reads 1"}, ExitCode::kBadData);
}

TEST_F(Shards, WarnsWhereNothingProvesTheBytes) {
  const int64_t before = log::lines(log::Level::kWarning);
  write_counting_shard(folder_ / "c", tokenizer_, 20);
  Shard(folder_ / "c", tokenizer_);
  EXPECT_EQ(log::lines(log::Level::kWarning), before);
  std::filesystem::remove(folder_ / "c.json");
  Shard(folder_ / "c", tokenizer_);
  EXPECT_EQ(log::lines(log::Level::kWarning), before + 1);
}

}  // namespace
}  // namespace mhmoe::data
