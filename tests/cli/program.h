// Runs the real executable in a temporary folder that holds a small configuration and its data.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/shards.h"
#include "data/tokenizer.h"

namespace mhmoe::cli {

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return lines;
}

struct Outcome {
  int code = 0;
  std::string out, err;
};

class ProgramTest : public testing::Test {
 protected:
  ProgramTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::temp_directory_path() / fmt::format("mhmoe-cli-{}-{}", getpid(), test->name());
    std::filesystem::create_directories(folder_);
    write_shard("train", 40);
    write_shard("validation", 3);
    std::ofstream(folder_ / "tiny.json") << kConfig;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  static std::string program() { return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "mhmoe"; }

  // `arguments` as a shell takes them; the working folder is the temporary one. `under` is a command that runs another.
  Outcome run(const std::string& arguments, const std::string& under = "") const {
    return run_shell(fmt::format("{} '{}' {}", under, program(), arguments));
  }
  Outcome run_shell(const std::string& script) const {
    const std::string command = fmt::format("cd '{}' && ( {} ) > out.txt 2> err.txt", folder_.string(), script);
    const int status = std::system(command.c_str());
    return {WEXITSTATUS(status), read_text(folder_ / "out.txt"), read_text(folder_ / "err.txt")};
  }

  // It must end with the code and, on standard error, one line "error: ..." with all the parts; no run has begun.
  void expect_refused(const std::string& arguments, int code, const std::vector<std::string>& parts) const {
    SCOPED_TRACE(arguments);
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, code) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    expect_error_line(outcome, parts);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "runs"));
  }
  static void expect_error_line(const Outcome& outcome, const std::vector<std::string>& parts) {
    const std::vector<std::string> lines = lines_of(outcome.err);
    ASSERT_FALSE(lines.empty());
    EXPECT_TRUE(lines.back().starts_with("error: ")) << outcome.err;
    for (const std::string& part : parts) EXPECT_NE(lines.back().find(part), std::string::npos) << outcome.err;
    for (size_t i = 0; i + 1 < lines.size(); ++i) EXPECT_FALSE(lines[i].starts_with("error")) << outcome.err;
  }

  // The same, not waited for.
  pid_t start(const std::string& arguments) const {
    const std::string command =
        fmt::format("cd '{}' && exec '{}' {} > out.txt 2> err.txt", folder_.string(), program(), arguments);
    const pid_t child = fork();
    if (child == 0) {
      execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
      _exit(127);
    }
    return child;
  }

  // The exit code of what start() began; 128 + the number of the signal that ended it.
  static int wait_for(pid_t child) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }

  std::filesystem::path folder_;

 private:
  static constexpr const char* kConfig = R"({
    "name": "tiny",
    "data": {"train": [{"path": "train"}], "validation": [{"name": "held_out", "path": "validation"}],
             "tokenizer": "bytes", "sequence_length": 16},
    "model": {"layers": 2, "hidden_size": 16, "attention_heads": 2, "ffn": {"hidden_size": 16},
              "moe": {"every_n_layers": 2, "experts": 4, "top_k": 2, "heads": 2, "expert_hidden_size": 16}},
    "train": {"steps": 6, "batch_tokens": 64, "micro_batch_sequences": 2, "precision": "fp32",
              "learning_rate": {"peak": 1e-2, "final": 1e-3, "warmup_steps": 2}},
    "evaluation": {"every_steps": 3, "tokens": 100}, "log": {"every_steps": 2}})";

  void write_shard(const std::string& name, int documents) const {
    const auto tokenizer = data::load_tokenizer("bytes");
    data::ShardWriter writer((folder_ / name).string(), *tokenizer);
    for (int i = 0; i < documents; ++i) {
      const std::string text = fmt::format("document {} of {}: the quick brown fox jumps {} times", i, name, i * i);
      std::vector<int32_t> ids;
      tokenizer->encode(text, ids);
      writer.add_document(ids, static_cast<int64_t>(text.size()));
    }
    writer.finish();
  }
};

}  // namespace mhmoe::cli
