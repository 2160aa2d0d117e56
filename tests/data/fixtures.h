// Temporary folders and hand-made shards for the tests of src/data.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/shards.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    // In memory where it can be: these tests sync files by the thousand.
    const std::filesystem::path memory = "/dev/shm";
    path_ = (access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path()) /
            flat(fmt::format("mhmoe-{}-{}-{}", getpid(), test->test_suite_name(), test->name()));
    std::filesystem::create_directories(path_);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }

 private:
  // Names of tests with parameters hold slashes.
  static std::string flat(std::string name) {
    std::replace(name.begin(), name.end(), '/', '-');
    return name;
  }
  std::filesystem::path path_;
};

inline void write_file(const std::string& path, const std::string& content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::filesystem::remove(path);  // ext4 writes a file that is emptied and filled again to the disk at once
  std::ofstream(path, std::ios::binary) << content;
}

inline std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::vector<int32_t> read_all(const Shard& shard) {
  std::vector<int32_t> ids(shard.token_count());
  shard.read(0, ids);
  return ids;
}

// Bytes of a file, number by number, little endian.
class Bytes {
 public:
  Bytes& add(int bytes, int64_t value) {
    for (int i = 0; i < bytes; ++i) text_ += static_cast<char>(value >> (8 * i));
    return *this;
  }
  Bytes& add(const std::string& bytes) {
    text_ += bytes;
    return *this;
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Ids 0 .. vocab_size - 1; the piece of id i is i % 5 letters, EOS is the last id.
class CountingTokenizer : public Tokenizer {
 public:
  explicit CountingTokenizer(int64_t vocab_size, uint64_t hash = 7) {
    for (int64_t id = 0; id + 1 < vocab_size; ++id) pieces_.emplace_back(id % 5, 'x');
    pieces_.emplace_back();
    eos_ = static_cast<int32_t>(vocab_size - 1);
    name_ = "counting";
    hash_ = hash;
  }
  void encode(std::string_view, std::vector<int32_t>&) const override {}
};

// One document of the ids 0 .. tokens - 2, then EOS: token i is i, so every read can be checked by eye.
inline void write_counting_shard(const std::string& prefix, const Tokenizer& tokenizer, int64_t tokens) {
  std::vector<int32_t> ids(tokens - 1);
  std::iota(ids.begin(), ids.end(), 0);
  ShardWriter writer(prefix, tokenizer);
  writer.add_document(ids, 0);
  writer.finish();
}

// f throws an Error, of that code if one is given, whose message holds every one of `parts`.
inline void expect_error(const std::function<void()>& f, const std::vector<std::string>& parts,
                         ExitCode code = ExitCode::kOk) {
  try {
    f();
    ADD_FAILURE() << "expected an error about " << parts.front();
  } catch (const Error& error) {
    if (code != ExitCode::kOk) {
      EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    }
    for (const std::string& part : parts) {
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << part << " is not in: " << error.what();
    }
  }
}

}  // namespace mhmoe::data
