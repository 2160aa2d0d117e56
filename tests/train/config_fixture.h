// Configurations written into a folder of the test's own.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "train/config.h"
#include "train/config_schema.h"

namespace mhmoe::train {

namespace fs = std::filesystem;

class ConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("mhmoe_config_{}_{}", info->name(), getpid());
    fs::create_directories(folder_ / "below");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  RunConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    return load_config(write("c.json", text), overrides);
  }
  // The message, or "accepted". `code` is what the error must carry.
  std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {},
                       ExitCode code = ExitCode::kConfig) const {
    try {
      load(text, overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_;
};

// A legal value of the key that is not the one it has `now`, both as JSON.
inline std::string another_value(const ConfigKey& key, const std::string& now) {
  switch (key.type) {
    case KeyType::kBoolean:
      return now == "true" ? "false" : "true";
    case KeyType::kChoice:
      return key.choices[key.choices[0] == now ? 1 : 0];
    case KeyType::kString:
      return "\"another\"";
    case KeyType::kInteger:
      return fmt::format("{:.0f}", std::floor((key.min + key.max) / 2));
    default:
      return fmt::format("{}", (key.min + key.max) / 2);
  }
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace mhmoe::train
