#include "core/faulty_file_system.h"
#include "core/parallel_for.h"
#include "data/corpus.h"
#include "data/fixtures.h"
#include "data/prepare.h"

namespace mhmoe::data {
namespace {

constexpr const char* kParts[] = {".bin", ".idx", ".json"};

// Four blocks of documents, each saved before the next.
class PrepareRestart : public testing::Test {
 protected:
  PrepareRestart() {
    std::string lines;
    for (int i = 0; i < 60; ++i) lines += fmt::format("{{\"text\": \"document {}\"}}\n", i * 7919);
    write_file(folder_ / "in/a.jsonl", lines);
    write_file(folder_ / "in/b.txt", "the last one");
    files_ = find_corpus_files(std::vector<std::string>{folder_ / "in"});
    threads_ = thread_count();
    set_thread_count(1);  // children of fork() have no other threads
    options_.block_documents = 16;
    options_.durable_bytes = 1;
    prepare("whole");
    whole_ = state("whole");
  }
  ~PrepareRestart() override { set_thread_count(threads_); }

  PrepareResult prepare(const std::string& name) {
    return prepare_shard(files_, folder_ / name, *tokenizer_, options_);
  }
  // Ends the process at that call of the file system, whatever is in memory lost. Returns the exit code.
  int prepare_and_die(const std::string& name, size_t call, bool half_way) {
    return exit_code_in_child([&] {
      FaultyFileSystem faulty;
      half_way ? faulty.die_half_way_at(call) : faulty.die_at(call);
      prepare(name);
    });
  }
  // The files whose name begins with `name`, and their bytes.
  std::map<std::string, std::string> state(const std::string& name) {
    std::map<std::string, std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "")) {
      const std::string file = entry.path().filename().string();
      if (file.starts_with(name + ".")) files[file.substr(name.size())] = read_file(entry.path().string());
    }
    return files;
  }
  void remove(const std::string& name) {
    for (const auto& [suffix, bytes] : state(name)) std::filesystem::remove(folder_ / (name + suffix));
  }

  TemporaryFolder folder_;
  std::vector<std::string> files_;
  std::unique_ptr<Tokenizer> tokenizer_ = load_tokenizer("bytes");
  PrepareOptions options_;
  std::map<std::string, std::string> whole_;
  int threads_;
};

TEST_F(PrepareRestart, KilledAtAnyCallTheSameCommandGivesTheSameBytes) {
  ASSERT_EQ(whole_.size(), 3u);
  int continued = 0;
  for (const bool half_way : {false, true}) {
    int code = FaultyFileSystem::kDied;
    for (size_t call = 0; code == FaultyFileSystem::kDied; ++call) {
      remove("s");
      code = prepare_and_die("s", call, half_way);
      const PrepareResult result = prepare("s");
      continued += result.continued_documents > 0;
      auto found = state("s");
      std::erase_if(found, [](const auto& file) { return file.first.find(".tmp-") != std::string::npos; });
      EXPECT_TRUE(found == whole_) << "killed at call " << call;
    }
    EXPECT_EQ(code, 0);
  }
  EXPECT_GT(continued, 30);
}

TEST_F(PrepareRestart, KilledTwiceAndAgain) {
  int kills = 0;
  for (size_t call = 9; prepare_and_die("s", call, true) == FaultyFileSystem::kDied; ++call) ++kills;
  EXPECT_GT(kills, 2);
  const auto found = state("s");
  for (const char* part : kParts) EXPECT_TRUE(found.at(part) == whole_.at(part)) << part;
}

TEST_F(PrepareRestart, AFullDiskLeavesWhatCanBeContinued) {
  {
    FaultyFileSystem faulty;
    prepare("x");
    const size_t calls = faulty.calls().size();
    faulty.fail_at(calls + calls / 2, ENOSPC, 1000000);
    expect_error([&] { prepare("s"); }, {"s.", "No space left"}, ExitCode::kIo);
  }
  EXPECT_GT(prepare("s").continued_documents, 0);
  EXPECT_TRUE(state("s") == whole_);
}

TEST_F(PrepareRestart, ACompleteShardIsRecognisedAndLeftAlone) {
  const auto before = std::filesystem::last_write_time(folder_ / "whole.bin");
  const PrepareResult result = prepare("whole");
  EXPECT_TRUE(result.up_to_date);
  EXPECT_EQ(result.info.documents, 61);
  EXPECT_EQ(std::filesystem::last_write_time(folder_ / "whole.bin"), before);
}

TEST_F(PrepareRestart, OtherInputsOrAnotherTokenizerAreRefusedUnlessOverwritten) {
  write_file(folder_ / "in/b.txt", "another last one");
  expect_error([&] { prepare("whole"); }, {"whole.json", "other files", "--overwrite"}, ExitCode::kCannotCreate);
  tokenizer_ = std::make_unique<CountingTokenizer>(300);
  expect_error([&] { prepare("whole"); }, {"whole.json", "another tokenizer", "--overwrite"}, ExitCode::kCannotCreate);
  tokenizer_ = load_tokenizer("bytes");
  EXPECT_TRUE(state("whole") == whole_);
  options_.overwrite = true;
  EXPECT_FALSE(prepare("whole").up_to_date);
  EXPECT_TRUE(prepare("whole").up_to_date);
  EXPECT_FALSE(state("whole") == whole_);
  options_.text_field = "story";
  expect_error([&] { prepare("whole"); }, {"a.jsonl:1:", "story"}, ExitCode::kBadData);
}

TEST_F(PrepareRestart, AnInterruptedRunOnOtherInputsIsRefusedUnlessOverwritten) {
  ASSERT_EQ(prepare_and_die("s", 16, false), FaultyFileSystem::kDied);
  ASSERT_TRUE(state("s").contains(".progress.json"));
  write_file(folder_ / "in/b.txt", "another last one");
  expect_error([&] { prepare("s"); }, {"s.progress.json", "other files", "--overwrite"}, ExitCode::kCannotCreate);
  options_.overwrite = true;
  EXPECT_EQ(prepare("s").continued_documents, 0);
  EXPECT_EQ(state("s").size(), 3u);
}

TEST_F(PrepareRestart, WhatAnotherProgramMadeIsNotReplaced) {
  write_file(folder_ / "s.idx", "mine");
  expect_error([&] { prepare("s"); }, {"s.idx", "another program", "--overwrite"}, ExitCode::kCannotCreate);
  EXPECT_EQ(read_file(folder_ / "s.idx"), "mine");
}

TEST_F(PrepareRestart, DamageToWhatWasInterruptedIsFound) {
  ASSERT_EQ(prepare_and_die("s", 16, false), FaultyFileSystem::kDied);
  const auto good = state("s");
  for (const char* part : {".bin.partial", ".sizes.partial", ".progress.json"}) {
    std::string bad = good.at(part);
    bad[bad.size() / 3] = static_cast<char>(bad[bad.size() / 3] ^ 4);
    for (const std::string& bytes : {bad, good.at(part).substr(0, 5)}) {
      write_file(folder_ / ("s" + std::string(part)), bytes);
      expect_error([&] { prepare("s"); }, {"s.", "--overwrite"}, ExitCode::kBadData);
    }
    write_file(folder_ / ("s" + std::string(part)), good.at(part));
  }
  write_file(folder_ / "s.bin.partial", "short");
  options_.overwrite = true;
  EXPECT_EQ(prepare("s").continued_documents, 0);
  EXPECT_TRUE(state("s") == whole_);
}

TEST_F(PrepareRestart, TwoAtOnceAreRefused) {
  ShardWriter first(folder_ / "s", *tokenizer_);
  expect_error([&] { prepare("s"); }, {"s.bin.partial", "another process"}, ExitCode::kCannotCreate);
}

}  // namespace
}  // namespace mhmoe::data
