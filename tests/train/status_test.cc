#include "train/status.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <regex>

#include "core/json.h"

namespace mhmoe::train {
namespace {

json::Value written(const RunStatus& status) {
  const std::string path = testing::TempDir() + "status_test/status.json";
  write_status(path, status);
  return json::read_file(path, ExitCode::kBadData);
}

TEST(Status, SaysHowARunStands) {
  RunStatus status = status_of_this_process();
  status.step = 20;
  status.steps = 100;
  status.tokens = 81920;
  status.loss = 2.5;
  status.validation = {{.name = "books", .loss = 3.0, .loss_dropless = 2.75, .bits_per_byte = 1.5}};
  status.eta_seconds = 12.5;
  status.checkpoint = "checkpoints/step-00000020";
  const json::Value file = written(status);
  EXPECT_EQ(file.find("state")->text, "running");
  EXPECT_EQ(file.find("step")->integer, 20);
  EXPECT_EQ(file.find("steps")->integer, 100);
  EXPECT_EQ(file.find("tokens")->integer, 81920);
  EXPECT_DOUBLE_EQ(file.find("perplexity")->real, std::exp(2.5));
  const json::Value* books = file.find("validation")->find("books");
  ASSERT_NE(books, nullptr);
  EXPECT_DOUBLE_EQ(books->find("perplexity")->real, std::exp(3.0));
  EXPECT_DOUBLE_EQ(books->find("perplexity_dropless")->real, std::exp(2.75));
  EXPECT_DOUBLE_EQ(books->find("bits_per_byte")->real, 1.5);
  EXPECT_DOUBLE_EQ(file.find("eta_seconds")->real, 12.5);
  EXPECT_EQ(file.find("pid")->integer, getpid());
  EXPECT_FALSE(file.find("host")->text.empty());
  EXPECT_EQ(file.find("checkpoint")->text, "checkpoints/step-00000020");
}

TEST(Status, WhatIsNotKnownIsNullAndEveryKeyIsThere) {
  const json::Value file = written(RunStatus{});
  for (const char* key :
       {"loss", "perplexity", "eta_seconds", "tokens_per_second", "exit_code", "message", "checkpoint"}) {
    ASSERT_NE(file.find(key), nullptr) << key;
    EXPECT_EQ(file.find(key)->kind, json::Kind::kNull) << key;
  }
  EXPECT_TRUE(file.find("validation")->items.empty());
}

TEST(Status, SaysWhyARunEnded) {
  RunStatus status;
  status.state = RunState::kFailed;
  status.exit_code = 80;
  status.message = "step 7: \"nan\"";
  json::Value file = written(status);
  EXPECT_EQ(file.find("state")->text, "failed");
  EXPECT_EQ(file.find("exit_code")->integer, 80);
  EXPECT_EQ(file.find("message")->text, "step 7: \"nan\"");
  status.state = RunState::kStopped;
  EXPECT_EQ(written(status).find("state")->text, "stopped");
  status.state = RunState::kFinished;
  EXPECT_EQ(written(status).find("state")->text, "finished");
}

TEST(Status, TimesAreUtc) {
  EXPECT_EQ(utc_time(std::chrono::system_clock::from_time_t(1'795'503'755)), "2026-11-24T07:02:35Z");
  const std::regex form(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)");
  EXPECT_TRUE(std::regex_match(written(RunStatus{}).find("updated")->text, form));
  EXPECT_TRUE(std::regex_match(status_of_this_process().started, form));
}

}  // namespace
}  // namespace mhmoe::train
