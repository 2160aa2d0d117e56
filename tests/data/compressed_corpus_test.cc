#include <zlib.h>
#include <zstd.h>

#include "data/corpus.h"
#include "data/fixtures.h"

namespace mhmoe::data {
namespace {

std::string gzip(const std::string& text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string zstd(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  ZSTD_CCtx* context = ZSTD_createCCtx();
  ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);  // as the zstd program writes files
  out.resize(ZSTD_compress2(context, out.data(), out.size(), text.data(), text.size()));
  ZSTD_freeCCtx(context);
  return out;
}

struct Format {
  const char* suffix;
  std::string (*compress)(const std::string&);
};
void PrintTo(const Format& format, std::ostream* out) {
  *out << format.suffix;
}

class CompressedCorpus : public testing::TestWithParam<Format> {
 protected:
  std::string path(const std::string& name) { return folder_ / (name + GetParam().suffix); }
  std::string compress(const std::string& text) { return GetParam().compress(text); }
  // The bytes of all documents, each followed by |.
  std::string read(const std::string& file, CorpusPosition start = {}) {
    CorpusReader reader({file}, start);
    std::string all;
    for (RawDocument document; reader.next(document);) all += document.bytes + "|";
    EXPECT_EQ(reader.bytes_read(), reader.bytes_total());
    return all;
  }

  TemporaryFolder folder_;
};

TEST_P(CompressedCorpus, IsReadLikeThePlainFile) {
  std::string lines, expected;
  for (int i = 0; i < 200000; ++i) {  // more than any buffer holds
    lines += fmt::format("line {}\n", i * 7919 % 100003);
    expected += fmt::format("line {}|", i * 7919 % 100003);
  }
  write_file(path("a.jsonl"), compress(lines));
  EXPECT_EQ(read(path("a.jsonl")), expected);
  write_file(path("a.txt"), compress(lines));
  EXPECT_EQ(read(path("a.txt")), lines + "|");
  write_file(path("empty.jsonl"), compress(""));
  EXPECT_EQ(read(path("empty.jsonl")), "");
  const CorpusPosition middle{.file = 0, .offset = static_cast<int64_t>(lines.find("line 5\n")), .lines = 1};
  EXPECT_EQ(read(path("a.jsonl"), middle), expected.substr(expected.find("line 5|")));
}

TEST_P(CompressedCorpus, MembersFollowOneAnother) {
  write_file(path("a.jsonl"), compress("1\n2") + compress("") + compress("3\n4\n") + compress("5"));
  EXPECT_EQ(read(path("a.jsonl")), "1|23|4|5|");
}

TEST_P(CompressedCorpus, EveryTruncationIsNamedWithItsPlace) {
  const std::string whole = compress("one\ntwo\nthree\n"), more = whole + compress("four\n");
  for (size_t length = 0; length < more.size(); ++length) {
    if (length == whole.size()) continue;  // the end of a member is the end of a file
    write_file(path("a.jsonl"), more.substr(0, length));
    expect_error([&] { read(path("a.jsonl")); },
                 {std::string("a.jsonl") + GetParam().suffix, "truncated", fmt::format("at byte {}", length)},
                 ExitCode::kBadData);
  }
}

TEST_P(CompressedCorpus, DamageIsNamedWithItsPlace) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += fmt::format("line {}\n", i * 7919 % 1009);
  const std::string whole = compress(text);
  write_file(path("a.jsonl"), whole);
  const std::string good = read(path("a.jsonl"));
  size_t found = 0, tried = 0;
  for (size_t at = 0; at < whole.size(); at += 13, ++tried) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 16);
    write_file(path("a.jsonl"), bad);
    try {
      EXPECT_EQ(read(path("a.jsonl")), good) << at;  // a bit that means nothing
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadData);
      EXPECT_NE(std::string(error.what()).find("near byte"), std::string::npos) << error.what();
      ++found;
    }
  }
  EXPECT_GT(found, tried * 9 / 10);
  write_file(path("a.jsonl"), whole + "garbage after the end");
  expect_error([&] { read(path("a.jsonl")); }, {"damaged", "near byte"}, ExitCode::kBadData);
  write_file(path("a.jsonl"), text);
  expect_error([&] { read(path("a.jsonl")); }, {"damaged", "near byte"}, ExitCode::kBadData);
}

TEST_P(CompressedCorpus, NamesOfRedPajama) {
  write_file(path("in/a.json"), compress("{\"raw_content\": \"x\"}\n"));
  write_file(folder_ / "in/a.json", "{\"shard\": \"of something\"}\n");
  EXPECT_EQ(find_corpus_files(std::vector<std::string>{folder_ / "in"}), std::vector<std::string>{path("in/a.json")});
}

INSTANTIATE_TEST_SUITE_P(Formats, CompressedCorpus, testing::Values(Format{".gz", gzip}, Format{".zst", zstd}));

}  // namespace
}  // namespace mhmoe::data
