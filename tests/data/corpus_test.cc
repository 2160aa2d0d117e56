#include "data/corpus.h"

#include "data/fixtures.h"

namespace mhmoe::data {
namespace {

class Corpus : public testing::Test {
 protected:
  std::vector<std::string> read(const std::vector<std::string>& inputs) {
    CorpusReader reader(find_corpus_files(inputs));
    DocumentParser parser(field_);
    std::vector<std::string> texts;
    for (RawDocument document; reader.next(document);) {
      texts.emplace_back(parser.parse(document, reader.files()[document.file]));
    }
    EXPECT_EQ(reader.bytes_read(), reader.bytes_total());
    return texts;
  }
  TemporaryFolder folder_;
  std::string field_;
};

TEST_F(Corpus, ReadsTextOfEveryLineWithEscapesAndEmptyDocuments) {
  write_file(folder_ / "a.jsonl",
             "{\"text\": \"one\\n\\u00e9 \\\"quoted\\\"\", \"source\": \"s\", \"id\": \"1\"}\n"
             "\n"
             "{\"id\": 2, \"text\": \"\"}\r\n"
             "{\"meta\": {\"text\": \"inner\"}, \"text\": \"outer\"}\n");
  EXPECT_EQ(read({folder_ / "a.jsonl"}), (std::vector<std::string>{"one\n\xc3\xa9 \"quoted\"", "", "outer"}));
}

TEST_F(Corpus, ATextFileIsOneDocumentUnchanged) {
  const std::string text = "first line\r\n\n  second\tline without end";
  write_file(folder_ / "a.txt", text);
  write_file(folder_ / "empty.txt", "");
  EXPECT_EQ(read({folder_ / "a.txt", folder_ / "empty.txt"}), (std::vector<std::string>{text, ""}));
}

TEST_F(Corpus, FoldersAreReadInOrderOfPathAndOtherFilesLeftAlone) {
  write_file(folder_ / "in/b.txt", "b");
  write_file(folder_ / "in/a/z.txt", "z");
  write_file(folder_ / "in/a.jsonl", "{\"text\": \"a1\"}\n{\"text\": \"a2\"}\n");
  write_file(folder_ / "in/notes.md", "no");
  write_file(folder_ / "first.txt", "first");
  EXPECT_EQ(read({folder_ / "first.txt", folder_ / "in"}), (std::vector<std::string>{"first", "a1", "a2", "z", "b"}));
}

TEST_F(Corpus, BadLinesAreNamedByFileAndLine) {
  const std::string good = "{\"text\": \"fine\"}\n";
  for (const char* bad : {"{\"text\": \"unclosed", "nonsense", "{\"text\": 5}", "{\"txt\": \"x\"}", "[1]", "\"text\"",
                          "{\"text\": \"\xff\"}", "{\"text\": \"\\ud800\"}", "{\"text\": \"a\"} {\"text\": \"b\"}"}) {
    write_file(folder_ / "bad.jsonl", good + "\n" + good + bad + "\n" + good);
    expect_error([&] { read({folder_ / "bad.jsonl"}); }, {"bad.jsonl:4:"});
  }
}

TEST_F(Corpus, TextThatIsNotUtf8IsNamedByFileAndLine) {
  write_file(folder_ / "latin1.txt", "good\ngood \xc3\xa9\nnot \xe9 good\n");
  expect_error([&] { read({folder_ / "latin1.txt"}); }, {"latin1.txt:3:", "UTF-8"});
}

TEST_F(Corpus, WhatCannotBeReadIsRefusedByName) {
  write_file(folder_ / "notes.md", "x");
  std::filesystem::create_directories(folder_ / "empty");
  expect_error([&] { read({folder_ / "absent.txt"}); }, {"absent.txt"});
  expect_error([&] { read({folder_ / "notes.md"}); }, {"notes.md", ".jsonl"});
  expect_error([&] { read({folder_ / "empty"}); }, {"empty", ".jsonl"});
  expect_error([&] { read({folder_ / "notes.md/a.txt"}); }, {"notes.md/a.txt", "Not a directory"});
  write_file(folder_ / "in/a.txt", "a");
  std::filesystem::create_symlink("loop.txt", folder_ / "in/loop.txt");
  expect_error([&] { read({folder_ / "in"}); }, {"in/loop.txt"});
  std::filesystem::create_directories(folder_ / "folder.txt");
  expect_error([&] { CorpusReader({folder_ / "folder.txt"}); }, {"folder.txt", "a folder, where a file belongs"});
}

TEST_F(Corpus, TheTextIsTakenFromTheFirstKnownFieldOrTheOneThatIsNamed) {
  write_file(
      folder_ / "a.jsonl",
      "{\"content\": \"c\", \"text\": \"t\"}\n{\"raw_content\": \"r\", \"content\": \"c\"}\n{\"content\": \"c\"}\n");
  EXPECT_EQ(read({folder_ / "a.jsonl"}), (std::vector<std::string>{"t", "r", "c"}));
  field_ = "content";
  EXPECT_EQ(read({folder_ / "a.jsonl"}), (std::vector<std::string>{"c", "c", "c"}));
}

TEST_F(Corpus, AFieldThatIsMissingIsAnErrorThatNamesThoseThatAreThere) {
  write_file(folder_ / "a.jsonl", "{\"body\": \"b\", \"text\": 5}\n");
  expect_error([&] { read({folder_ / "a.jsonl"}); },
               {"a.jsonl:1:", "\"raw_content\"", "body, text (no string)", "--text-field"}, ExitCode::kBadData);
  field_ = "story";
  expect_error([&] { read({folder_ / "a.jsonl"}); }, {"a.jsonl:1:", "\"story\"", "body"}, ExitCode::kBadData);
  field_ = "body";
  EXPECT_EQ(read({folder_ / "a.jsonl"}), (std::vector<std::string>{"b"}));
}

TEST_F(Corpus, PatternsAreExpandedInOrderOfPath) {
  for (const char* name : {"b1", "a10", "a2"}) write_file(folder_ / fmt::format("in/{}.txt", name), name);
  write_file(folder_ / "in/a.md", "no");
  EXPECT_EQ(read({folder_ / "in/a*"}), (std::vector<std::string>{"a10", "a2"}));
  EXPECT_EQ(read({folder_ / "in/[b]?.txt", folder_ / "i*/a2.txt"}), (std::vector<std::string>{"b1", "a2"}));
  expect_error([&] { read({folder_ / "in/x*"}); }, {"in/x*", "nothing matches"}, ExitCode::kMissingInput);
  expect_error([&] { read({folder_ / "in/*.md"}); }, {"in/*.md", ".jsonl"}, ExitCode::kUsage);
  write_file(folder_ / "in/[b]?.txt", "a file of that very name comes first");
  EXPECT_EQ(read({folder_ / "in/[b]?.txt"}).size(), 1u);
}

TEST_F(Corpus, ADocumentTooLongForMemoryIsNamed) {
  std::ofstream(folder_ / "big.txt").close();
  std::filesystem::resize_file(folder_ / "big.txt", kMaxDocumentBytes + 1);
  expect_error([&] { read({folder_ / "big.txt"}); }, {"big.txt:1:", "128 MiB", "split"}, ExitCode::kBadData);
  std::ofstream(folder_ / "big.jsonl") << "{\"text\": \"\"}\n";
  std::filesystem::resize_file(folder_ / "big.jsonl", kMaxDocumentBytes + 100);
  expect_error([&] { read({folder_ / "big.jsonl"}); }, {"big.jsonl:2:", "128 MiB"}, ExitCode::kBadData);
}

TEST_F(Corpus, ReadingGoesOnAtAnyPosition) {
  write_file(folder_ / "a.jsonl", "{\"text\": \"1\"}\n\n{\"text\": \"2\"}\n{\"text\": \"3\"}");
  write_file(folder_ / "b.txt", "4");
  write_file(folder_ / "c.jsonl", "\n{\"text\": \"5\"}\n");
  const auto files =
      find_corpus_files(std::vector<std::string>{folder_ / "a.jsonl", folder_ / "b.txt", folder_ / "c.jsonl"});
  CorpusReader all(files);
  DocumentParser parser;
  RawDocument document, again;
  for (int i = 0; i <= 5; ++i) {
    CorpusReader rest(files, all.position());
    EXPECT_EQ(rest.bytes_read(), all.bytes_read());
    for (int text = i + 1; rest.next(again); ++text) {
      EXPECT_EQ(parser.parse(again, ""), std::to_string(text));
    }
    EXPECT_EQ(all.next(document), i < 5);
  }
}

}  // namespace
}  // namespace mhmoe::data
