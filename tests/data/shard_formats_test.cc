// Token files that other programs wrote.
#include "data/fixtures.h"

namespace mhmoe::data {
namespace {

struct Index {
  int dtype = 8;
  std::vector<int> sizes = {2, 0, 3};
  std::vector<int> documents = {0, 2, 3};
  bool modes = false;

  std::string bytes(int width) const {
    Bytes index;
    index.add(std::string("MMIDIDX\0\0", 9)).add(8, 1).add(1, dtype);
    index.add(8, static_cast<int64_t>(sizes.size())).add(8, static_cast<int64_t>(documents.size()));
    for (const int size : sizes) index.add(4, size);
    int64_t pointer = 0;
    for (const int size : sizes) {
      index.add(8, pointer);
      pointer += size * width;
    }
    for (const int document : documents) index.add(8, document);
    for (size_t i = 0; modes && i < sizes.size(); ++i) index.add(1, static_cast<int64_t>(i % 2));
    return index.text();
  }
};

std::string llmc(uint32_t magic, uint32_t version, const std::vector<int>& ids, int width) {
  Bytes file;
  file.add(4, magic).add(4, version).add(4, static_cast<int64_t>(ids.size()));
  for (int i = 3; i < 256; ++i) file.add(4, 0);
  for (const int id : ids) file.add(width, id);
  return file.text();
}

class ShardFormats : public testing::Test {
 protected:
  Shard write(const std::string& name, const std::string& index, const std::string& tokens) {
    write_file(folder_ / (name + ".idx"), index);
    write_file(folder_ / (name + ".bin"), tokens);
    return Shard(folder_ / name, tokenizer_);
  }
  std::string tokens(int width, const std::vector<int>& ids = {5, 99, 1, 0, 99}) {
    Bytes bytes;
    for (const int id : ids) bytes.add(width, id);
    return bytes.text();
  }

  TemporaryFolder folder_;
  CountingTokenizer tokenizer_{100};
  std::vector<int32_t> ids_ = {5, 99, 1, 0, 99};
};

TEST_F(ShardFormats, ReadsEveryIntegerTypeOfMegatron) {
  const std::vector<std::pair<int, int>> code_and_width = {{1, 1}, {2, 1}, {3, 2}, {4, 4}, {5, 8}, {8, 2}};
  for (const auto& [code, width] : code_and_width) {
    for (const bool modes : {false, true}) {
      const Shard shard =
          write(fmt::format("m{}{}", code, modes), Index{.dtype = code, .modes = modes}.bytes(width), tokens(width));
      EXPECT_EQ(read_all(shard), ids_) << code;
      EXPECT_EQ(shard.document_count(), 2);  // the first has two sequences
      EXPECT_FALSE(shard.info().has_value());
    }
  }
}

TEST_F(ShardFormats, OtherTypesAreRefused) {
  for (const int code : {0, 6, 7, 9, 255}) {
    expect_error([&] { write("x", Index{.dtype = code}.bytes(2), tokens(2)); },
                 {"x.idx: offset 17", "int64", fmt::format("found {}", code)}, ExitCode::kBadData);
  }
}

TEST_F(ShardFormats, TheWidthIsNeverGuessed) {
  expect_error([&] { write("x", Index{.dtype = 4}.bytes(4), tokens(2)); }, {"x.bin", "10 bytes", "expected 20"},
               ExitCode::kBadData);
  expect_error([&] { write("x", Index{.dtype = 4}.bytes(2), tokens(2)); }, {"x.idx", "sequence 1", "byte 4"},
               ExitCode::kBadData);
}

TEST_F(ShardFormats, IdsThatNoInt32HoldsAreOutsideTheVocabulary) {
  const Index one{.dtype = 5, .sizes = {1}, .documents = {0, 1}};
  for (const int64_t id : {int64_t{1} << 32, int64_t{-1}, int64_t{100}, std::numeric_limits<int64_t>::min()}) {
    const Shard shard = write("x", one.bytes(8), Bytes().add(8, id).text());
    expect_error([&] { read_all(shard); }, {"x.bin: offset 0", std::to_string(id), "vocabulary of 100"},
                 ExitCode::kBadData);
  }
  const Shard negative = write("x", Index{.dtype = 2, .sizes = {2}, .documents = {0, 1}}.bytes(1), "\x05\xff");
  expect_error([&] { read_all(negative); }, {"offset 1", "id -1"}, ExitCode::kBadData);
}

TEST_F(ShardFormats, ASwappedByteOrderIsNamed) {
  std::string index = Index().bytes(2);
  std::reverse(index.begin() + 9, index.begin() + 17);
  expect_error([&] { write("x", index, tokens(2)); }, {"x.idx: offset 9", "big-endian"}, ExitCode::kBadData);

  std::string file = llmc(20240520, 1, {5}, 2);
  for (size_t i = 0; i < file.size(); i += 4)
    std::reverse(file.begin() + i, file.begin() + std::min(i + 4, file.size()));
  write_file(folder_ / "l.bin", file);
  expect_error([&] { Shard(folder_ / "l", tokenizer_); }, {"l.bin: offset 0", "big-endian"}, ExitCode::kBadData);
}

TEST_F(ShardFormats, ReadsBothKindsOfLlmcByPrefixOrName) {
  const std::vector<int> ids = {5, 99, 1, 0, 99};
  write_file(folder_ / "gpt2.bin", llmc(20240520, 1, ids, 2));
  write_file(folder_ / "llama3.bin", llmc(20240801, 7, ids, 4));
  for (const char* path : {"gpt2", "gpt2.bin", "llama3", "llama3.bin"}) {
    const Shard shard(folder_ / path, tokenizer_);
    EXPECT_EQ(read_all(shard), ids_) << path;
    EXPECT_FALSE(shard.document_count().has_value());
  }
  write_file(folder_ / "wide.bin", llmc(20240801, 7, {5, -1}, 4));
  expect_error([&] { read_all(Shard(folder_ / "wide", tokenizer_)); }, {"wide.bin: offset 1028", "4294967295"},
               ExitCode::kBadData);
}

TEST_F(ShardFormats, OtherHeadersOfLlmcAreRefused) {
  const auto refused = [&](const std::string& file, const std::vector<std::string>& parts) {
    write_file(folder_ / "l.bin", file);
    expect_error([&] { Shard(folder_ / "l", tokenizer_); }, parts, ExitCode::kBadData);
  };
  refused(llmc(20240522, 1, {5}, 2), {"l.bin: offset 0", "20240520", "20240801", "found 20240522"});
  refused(llmc(20240520, 2, {5}, 2), {"l.bin: offset 4", "version 1", "found 2"});
  refused(llmc(20240801, 1, {5}, 4), {"l.bin: offset 4", "version 7", "found 1"});
  refused(llmc(20240520, 1, {5}, 4), {"l.bin: offset 8", "1 tokens of uint16 take 1026 bytes, the file has 1028"});
  refused("", {"l.bin: offset 0"});
  const std::string file = llmc(20240520, 1, {5, 6}, 2);
  for (size_t length = 0; length < file.size(); ++length) refused(file.substr(0, length), {"l.bin: offset"});
  refused(llmc(20240520, 1, {}, 2).replace(8, 4, std::string(4, '\xff')), {"l.bin: offset 8", "-1 tokens"});
}

}  // namespace
}  // namespace mhmoe::data
