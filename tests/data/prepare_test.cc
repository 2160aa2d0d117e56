#include "data/prepare.h"

#include "core/parallel_for.h"
#include "data/corpus.h"
#include "data/fixtures.h"
#include "data/sentencepiece_tokenizer.h"

namespace mhmoe::data {
namespace {

class Prepare : public testing::Test {
 protected:
  // More documents than fit in one block, of very different lengths, some of them empty.
  Prepare() {
    std::string lines;
    for (int i = 0; i < 20000; ++i) {
      std::string text;
      for (int word = 0; word < i * 7919 % 23; ++word)
        text += fmt::format("{}word{}", word % 5 ? " " : "\\n  ", (i + word) % 97);
      lines += fmt::format("{{\"text\": \"{}\"}}\n", text);
    }
    write_file(folder_ / "in.jsonl", lines);
    threads_ = thread_count();
  }
  ~Prepare() override { set_thread_count(threads_); }

  ShardInfo prepare(const std::string& name, const Tokenizer& tokenizer, int threads) {
    set_thread_count(threads);
    return prepare_shard(find_corpus_files(inputs_), folder_ / name, tokenizer, {}).info;
  }

  TemporaryFolder folder_;
  std::vector<std::string> inputs_ = {folder_ / "in.jsonl"};
  int threads_;
};

TEST_F(Prepare, BytesDoNotDependOnTheNumberOfThreads) {
  train_tokenizer(inputs_, "", 340, folder_ / "t.model");
  const auto tokenizer = load_tokenizer(folder_ / "t.model");
  prepare("one", *tokenizer, 1);
  prepare("four", *tokenizer, 4);
  for (const char* suffix : {".bin", ".idx", ".json"}) {
    EXPECT_TRUE(read_file((folder_ / "one") + suffix) == read_file((folder_ / "four") + suffix)) << suffix;
  }
}

TEST_F(Prepare, TheShardHoldsEveryDocumentInOrderEachEndedByEos) {
  train_tokenizer(inputs_, "", 340, folder_ / "t.model");
  const auto tokenizer = load_tokenizer(folder_ / "t.model");
  const ShardInfo info = prepare("s", *tokenizer, 3);
  EXPECT_EQ(info.documents, 20000);

  const Shard shard(folder_ / "s", *tokenizer);
  std::vector<int32_t> ids(shard.token_count());
  shard.read(0, ids);
  CorpusReader corpus(find_corpus_files(inputs_));
  DocumentParser parser;
  auto begin = ids.begin();
  int64_t bytes = 0;
  for (RawDocument document; corpus.next(document);) {
    const std::string text(parser.parse(document, inputs_[0]));
    const auto end = std::find(begin, ids.end(), tokenizer->eos());
    ASSERT_NE(end, ids.end());
    ASSERT_EQ(tokenizer->decode({begin, end}), text);
    begin = end + 1;
    bytes += static_cast<int64_t>(text.size());
  }
  EXPECT_EQ(begin, ids.end());
  EXPECT_EQ(info.utf8_bytes, bytes);
}

TEST_F(Prepare, ProgressEndsAtTheWholeInput) {
  Progress last;
  PrepareOptions options;
  options.progress = [&](const Progress& progress) {
    EXPECT_GT(progress.bytes_read, last.bytes_read);
    last = progress;
  };
  prepare_shard(inputs_, folder_ / "p", *load_tokenizer("bytes"), options);
  EXPECT_EQ(last.bytes_read, static_cast<int64_t>(std::filesystem::file_size(inputs_[0])));
  EXPECT_EQ(last.bytes_total, last.bytes_read);
}

TEST_F(Prepare, ABadLineLeavesNoShard) {
  write_file(folder_ / "bad/in.jsonl", "{\"text\": \"a\"}\n{}\n");
  inputs_ = {folder_ / "bad/in.jsonl"};
  expect_error([&] { prepare("out/x", *load_tokenizer("bytes"), 1); }, {"in.jsonl:2:"});
  EXPECT_TRUE(std::filesystem::is_empty(folder_ / "out"));
}

TEST_F(Prepare, LongLinesAreCutForTrainingBetweenCharactersAndAtTabs) {
  std::string text = "q";  // puts the longest line's end inside a character
  while (text.size() < 3 * kMaxTrainingLine) text += "qj\xc3\xa9z ";
  write_file(folder_ / "long.txt", text + "\t" + text);
  inputs_ = {folder_ / "long.txt"};
  train_tokenizer(inputs_, "", 266, folder_ / "t.model");
  EXPECT_EQ(read_file(folder_ / "t.model").find("\xef\xbf\xbd"), std::string::npos);
  std::vector<int32_t> ids;
  load_tokenizer(folder_ / "t.model")->encode("qj\xc3\xa9z", ids);
  EXPECT_LE(ids.size(), 2u);
}

}  // namespace
}  // namespace mhmoe::data
