#include "train/checkpoint.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "checkpoint_fixture.h"
#include "train/config.h"

namespace mhmoe::train {
namespace {

constexpr const char* kModel = "model-00001-of-00001.safetensors";
constexpr const char* kOptimizer = "optimizer-00001-of-00001.safetensors";

// The values are those of the snapshot, bit for bit.
void expect_holds(const Checkpoint& checkpoint, const Snapshot& snapshot) {
  EXPECT_EQ(checkpoint.step(), snapshot.step);
  EXPECT_EQ(checkpoint.run_id(), snapshot.run_id);
  EXPECT_EQ(json::to_text(checkpoint.state()), json::to_text(snapshot.state));
  const auto expect = [](const std::vector<SafetensorsFile>& files, const std::vector<NamedTensor>& tensors) {
    ASSERT_EQ(files.size(), 1u);
    EXPECT_EQ(files[0].names().size(), tensors.size());
    for (const auto& [name, tensor, scalar] : tensors) {
      const Tensor& found = files[0].at(name);
      ASSERT_TRUE(found.same_shape(tensor)) << name;
      EXPECT_EQ(std::memcmp(found.data, tensor.data, tensor.bytes()), 0) << name;
    }
  };
  expect(checkpoint.read("model"), snapshot.model);
  expect(checkpoint.read("optimizer"), snapshot.optimizer);
}

using CheckpointFormat = CheckpointTest;

TEST_F(CheckpointFormat, WhatIsWrittenIsReadBack) {
  const Snapshot snapshot = make_snapshot(12);
  EXPECT_EQ(write_checkpoint(folder_, snapshot), folder_ + "/step-00000012");
  EXPECT_EQ(read_bytes(folder_ + "/latest"), "step-00000012\n");
  EXPECT_EQ(tree(root_).size(), 6u) << "something was left";
  const Checkpoint checkpoint(path(12));
  checkpoint.verify();
  expect_holds(checkpoint, snapshot);
  EXPECT_EQ(checkpoint.mhmoe_version(), mhmoe_version());
  EXPECT_EQ(checkpoint.tensors().size(), 6u);
  EXPECT_EQ(static_cast<uintmax_t>(checkpoint.bytes()),
            fs::file_size(path(12) + "/" + kModel) + fs::file_size(path(12) + "/" + kOptimizer));
  expect_holds(newest_checkpoint(folder_).value(), snapshot);
  for (const fs::path& meant : {root_, fs::path(folder_), fs::path(path(12))}) {
    expect_holds(find_checkpoint(meant), snapshot);
  }
}

TEST_F(CheckpointFormat, AResolvedConfigurationKeepsItsBytes) {
  Snapshot snapshot = make_snapshot(1);
  snapshot.config = resolved_config(RunConfig{});
  write_checkpoint(folder_, snapshot);
  EXPECT_EQ(Checkpoint(path(1)).config(), snapshot.config);
}

TEST_F(CheckpointFormat, NothingThereIsNoCheckpoint) {
  EXPECT_FALSE(newest_checkpoint(folder_).has_value());
  EXPECT_TRUE(checkpoint_steps(folder_).empty());
  prune_checkpoints(folder_, 1, 0);
  fs::create_directories(folder_);
  EXPECT_FALSE(newest_checkpoint(folder_).has_value());
  EXPECT_EQ(thrown_by([&] { Checkpoint checkpoint(path(3)); }).code, ExitCode::kMissingInput);
  EXPECT_EQ(thrown_by([&] { find_checkpoint(root_); }).code, ExitCode::kMissingInput);
  fs::create_directories(path(3));
  const Thrown empty = thrown_by([&] { newest_checkpoint(folder_); });
  EXPECT_EQ(empty.code, ExitCode::kBadData);
  EXPECT_TRUE(empty.says("manifest.json")) << empty.message;
}

TEST_F(CheckpointFormat, TheSameStepAgainKeepsWhatIsGoodAndReplacesTheRest) {
  write_checkpoint(folder_, make_snapshot(5));
  struct stat before {
  }, after{};
  ASSERT_EQ(stat(path(5).c_str(), &before), 0);
  write_checkpoint(folder_, make_snapshot(5));
  ASSERT_EQ(stat(path(5).c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino) << "written again for nothing";

  write_checkpoint(folder_, make_snapshot(5, 1));  // the run came there on another way
  expect_holds(Checkpoint(path(5)), make_snapshot(5, 1));
  write_bytes(path(5) + "/" + kModel, "damaged");
  write_checkpoint(folder_, make_snapshot(5, 1));
  expect_holds(newest_checkpoint(folder_).value(), make_snapshot(5, 1));

  const Thrown other = thrown_by([&] { write_checkpoint(folder_, make_snapshot(5, 1, "run-2")); });
  EXPECT_EQ(other.code, ExitCode::kCannotCreate);
  EXPECT_TRUE(other.says("run-1") && other.says("run-2")) << other.message;
  prune_checkpoints(folder_, 3, 0);
  EXPECT_EQ(tree(root_).size(), 6u) << "what was replaced is still there";
}

TEST_F(CheckpointFormat, ARunThatGoesBackIsNotOvertakenByWhatItHadSaved) {
  for (const int64_t step : {10, 20, 30}) write_checkpoint(folder_, make_snapshot(step));
  write_checkpoint(folder_, make_snapshot(15, 1));
  EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{10, 15}));
  EXPECT_EQ(newest_checkpoint(folder_)->step(), 15);
  prune_checkpoints(folder_, 1, 0);
  Checkpoint(folder_ + "/set-aside-step-00000030").verify();
  write_checkpoint(folder_, make_snapshot(30, 1));
  write_checkpoint(folder_, make_snapshot(15, 2));
  Checkpoint(folder_ + "/set-aside-step-00000030-2").verify();
}

TEST_F(CheckpointFormat, DamagedOnesArePassedOver) {
  for (const int64_t step : {1, 2, 3}) write_checkpoint(folder_, make_snapshot(step));
  write_bytes(path(3) + "/manifest.json", "{");
  fs::remove(path(2) + "/" + kOptimizer);
  const int64_t warnings = log::lines(log::Level::kWarning);
  EXPECT_EQ(newest_checkpoint(folder_)->step(), 1);
  EXPECT_EQ(log::lines(log::Level::kWarning), warnings + 2);
  write_bytes(path(1) + "/" + kModel, "");
  const Thrown none = thrown_by([&] { newest_checkpoint(folder_); });
  EXPECT_EQ(none.code, ExitCode::kBadData);
  EXPECT_TRUE(none.says("none of its 3") && none.says(path(3))) << none.message;
}

TEST_F(CheckpointFormat, PruningKeepsTheNewestThePermanentAndTheOneInUse) {
  for (int64_t step = 1; step <= 8; ++step) write_checkpoint(folder_, make_snapshot(step));
  fs::create_directories(folder_ + "/step-00000004.tmp-run-1-17-1");
  write_bytes(folder_ + "/step-00000004.tmp-run-1-17-1/manifest.json", "{}");
  fs::create_directories(folder_ + "/.trash-step-00000002/deeper");
  write_bytes(folder_ + "/latest.tmp-17-0123456789abcdef", "half");
  write_bytes(folder_ + "/of-a-person", "stays");
  write_bytes(path(7) + "/" + kModel, "damaged");  // not counted, and too new to go
  prune_checkpoints(folder_, 2, 3, {path(1) + "/"});
  EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{1, 3, 6, 7, 8}));
  EXPECT_EQ(read_bytes(folder_ + "/latest"), "step-00000008\n");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder_), {}), 7);
  prune_checkpoints(folder_, 2, 3);
  EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{3, 6, 7, 8}));
}

// Rows 31 and 32: neither `latest` nor times decide.
TEST_F(CheckpointFormat, LatestIsMadeAnewAndTimesPlayNoRole) {
  for (const int64_t step : {1, 2}) write_checkpoint(folder_, make_snapshot(step));
  const auto future = fs::file_time_type::clock::now() + std::chrono::hours(24 * 365);
  fs::last_write_time(path(1), future);
  fs::last_write_time(path(1) + "/manifest.json", future);
  for (const char* text : {"", "step-0000", "step-00000009\n", "step-00000002", "../step-00000002\n"}) {
    write_bytes(folder_ + "/latest", text);
    EXPECT_EQ(newest_checkpoint(folder_)->step(), 2) << text;
    prune_checkpoints(folder_, 5, 0);
    EXPECT_EQ(read_bytes(folder_ + "/latest"), "step-00000002\n") << text;
  }
  fs::remove(folder_ + "/latest");
  prune_checkpoints(folder_, 5, 0);
  EXPECT_EQ(read_bytes(folder_ + "/latest"), "step-00000002\n");
}

// Row 22.
TEST_F(CheckpointFormat, MissingExtraAndForeignFilesAreNamed) {
  write_checkpoint(folder_, make_snapshot(11));
  write_checkpoint(folder_, make_snapshot(12));
  const auto other = (root_ / "other").string();
  write_checkpoint(other, make_snapshot(11, 0, "run-2"));
  const std::string model = path(11) + "/" + kModel, good = read_bytes(model);
  const auto expect = [&](const char* what, const std::vector<std::string>& parts) {
    const Thrown thrown = thrown_by([&] { Checkpoint(path(11)).verify(); });
    EXPECT_EQ(thrown.code, ExitCode::kBadData) << what;
    for (const std::string& part : parts) EXPECT_TRUE(thrown.says(part)) << what << ": " << thrown.message;
  };
  write_bytes(model, read_bytes(path(12) + "/" + kModel));
  expect("another step's", {kModel, "step 12 of run run-1", "step 11 of run run-1"});
  write_bytes(model, read_bytes(other + "/step-00000011/" + kModel));
  expect("another run's", {kModel, "step 11 of run run-2", "step 11 of run run-1"});
  write_bytes(model, read_bytes(path(11) + "/" + kOptimizer));
  expect("the other kind's", {kModel, "whole"});
  fs::remove(model);
  expect("missing", {kModel, "missing"});
  write_bytes(model, good);
  write_bytes(path(11) + "/notes.txt", "mine");
  expect("extra", {"notes.txt"});
  fs::remove(path(11) + "/notes.txt");
  Checkpoint(path(11)).verify();
  fs::remove_all(path(12));
  fs::rename(path(11), path(12));
  EXPECT_TRUE(thrown_by([&] { Checkpoint checkpoint(path(12)); }).says("step 11"));
}

// Row 71: files that could lead elsewhere are refused before they are opened.
TEST_F(CheckpointFormat, LinksAndSpecialFilesAreRefused) {
  write_checkpoint(folder_, make_snapshot(1));
  fs::rename(path(1) + "/" + kModel, root_ / "elsewhere");
  const std::vector<std::pair<const char*, std::function<void(const std::string&)>>> ways = {
      {"symbolic link", [&](const std::string& name) { fs::create_symlink(root_ / "elsewhere", name); }},
      {"hard links", [&](const std::string& name) { fs::create_hard_link(root_ / "elsewhere", name); }},
      {"special file", [](const std::string& name) { ASSERT_EQ(mkfifo(name.c_str(), 0600), 0); }},
      {"folder", [](const std::string& name) { fs::create_directory(name); }}};
  for (const auto& [what, make] : ways) {
    make(path(1) + "/" + kModel);
    const Thrown thrown = thrown_by([&] { Checkpoint checkpoint(path(1)); });
    EXPECT_EQ(thrown.code, ExitCode::kPermission) << what;
    EXPECT_TRUE(thrown.says(what) && thrown.says(kModel)) << thrown.message;
    fs::remove(path(1) + "/" + kModel);
  }
  fs::rename(root_ / "elsewhere", path(1) + "/" + kModel);
  fs::create_directory_symlink(path(1), path(2));
  EXPECT_EQ(thrown_by([&] { Checkpoint checkpoint(path(2)); }).code, ExitCode::kPermission);
  for (const char* name : {"manifest.json", kModel}) {
    fs::rename(path(1) + "/" + name, root_ / "elsewhere");
    fs::create_symlink(root_ / "elsewhere", path(1) + "/" + name);
    EXPECT_EQ(thrown_by([&] { Checkpoint checkpoint(path(1)); }).code, ExitCode::kPermission) << name;
    fs::remove(path(1) + "/" + name);
    fs::rename(root_ / "elsewhere", path(1) + "/" + name);
  }
}

// Row 34.
TEST_F(CheckpointFormat, NonFiniteWeightsAreRefusedUnlessAllowed) {
  Snapshot snapshot = make_snapshot(1);
  snapshot.storage[1][2] = std::numeric_limits<float>::quiet_NaN();
  write_checkpoint(folder_, snapshot);
  const Thrown thrown = thrown_by([&] { newest_checkpoint(folder_); });
  EXPECT_EQ(thrown.code, ExitCode::kBadData);
  EXPECT_TRUE(thrown.says("'final_norm.weight' holds nan at element 2")) << thrown.message;
  Checkpoint(path(1)).read("optimizer");
  EXPECT_TRUE(std::isnan(newest_checkpoint(folder_, true)->read("model")[0].doubles("final_norm.weight")[2]));
}

}  // namespace
}  // namespace mhmoe::train
