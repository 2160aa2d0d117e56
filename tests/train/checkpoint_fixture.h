// Small checkpoints for tests.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <string>

#include "core/log.h"
#include "train/checkpoint.h"

namespace mhmoe::train {

namespace fs = std::filesystem;

// Five tensors, whose values depend on step and `variant`.
inline Snapshot make_snapshot(int64_t step, int variant = 0, const std::string& run_id = "run-1") {
  Snapshot snapshot;
  snapshot.run_id = run_id;
  snapshot.step = step;
  snapshot.config = R"({"name": "tiny", "train": {"steps": 100, "learning_rate": {"peak": 0.001}}})";
  snapshot.state = json::Value::object();
  snapshot.state.add("run_hash", fmt::format("{:016x}", step * 1000 + variant));
  snapshot.state.add("tokens", step * 64);
  const auto add = [&](std::vector<NamedTensor>& to, const std::string& name, std::vector<int64_t> shape) {
    int64_t count = 1;
    for (const int64_t dim : shape) count *= dim;
    std::vector<float>& values = snapshot.storage.emplace_back(static_cast<size_t>(count));
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>(step) + 0.25f * static_cast<float>(i) - static_cast<float>(variant + to.size());
    }
    to.push_back({name, Tensor(values.data(), DType::kF32, shape)});
  };
  add(snapshot.model, "embed.weight", {3, 4});
  add(snapshot.model, "final_norm.weight", {4});
  for (const char* moment : {"moment1.", "moment2."}) {
    add(snapshot.optimizer, std::string(moment) + "embed.weight", {3, 4});
    add(snapshot.optimizer, std::string(moment) + "final_norm.weight", {4});
  }
  return snapshot;
}

inline std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// Name and content of every file below a folder.
inline std::map<std::string, std::string> tree(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    files[fs::relative(entry.path(), folder).string()] = entry.is_regular_file() ? read_bytes(entry.path()) : "";
  }
  return files;
}

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    // In memory where that can be had: syncing to a disk makes sweeps slow and tests nothing here.
    const bool memory = access("/dev/shm", W_OK) == 0;
    root_ = fs::path(memory ? "/dev/shm" : testing::TempDir()) /
            fmt::format("mhmoe-checkpoint-{}-{}", info->name(), getpid());
    fs::remove_all(root_);
    fs::create_directories(root_);
    folder_ = (root_ / "checkpoints").string();
  }
  ~CheckpointTest() override { fs::remove_all(root_); }

  std::string path(int64_t step) const { return checkpoint_path(folder_, step); }

  fs::path root_;
  std::string folder_;  // of checkpoints; not created
};

// What `work` throws: exit code and one-line message; kOk and "" if nothing.
struct Thrown {
  ExitCode code = ExitCode::kOk;
  std::string message;
  bool says(const std::string& part) const { return message.find(part) != std::string::npos; }
};

inline Thrown thrown_by(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return {error.code(), error.what()};
  }
  return {};
}

}  // namespace mhmoe::train
