#include "data/corpus.h"

#include "data/fixtures.h"

namespace mhmoe::data {
namespace {

class Corpus : public testing::Test {
 protected:
  std::vector<std::string> read(const std::vector<std::string>& inputs) {
    CorpusReader reader(find_corpus_files(inputs));
    std::vector<std::string> texts;
    for (std::string text; reader.next(text);) texts.push_back(text);
    EXPECT_EQ(reader.bytes_read(), reader.bytes_total());
    return texts;
  }
  TemporaryFolder folder_;
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
  expect_error([&] { CorpusReader({folder_ / "folder.txt"}); }, {"folder.txt", "not a regular file"});
}

}  // namespace
}  // namespace mhmoe::data
