#include "train/checkpoint_saver.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "checkpoint_fixture.h"
#include "core/faulty_file_system.h"

namespace mhmoe::train {
namespace {

class CheckpointSaverTest : public CheckpointTest {
 protected:
  SaverOptions options(bool asynchronous) const {
    return {.folder = folder_, .keep_last = 2, .max_failed_saves = 3, .asynchronous = asynchronous, .in_use = {}};
  }
};

// Row 35: a save that runs beside the run has the bytes of one that the run waits for.
TEST_F(CheckpointSaverTest, AsynchronousAndBlockingSavesAreEqual) {
  std::map<std::string, std::string> files[2];
  for (const bool asynchronous : {false, true}) {
    SaverOptions used = options(asynchronous);
    used.folder = (root_ / (asynchronous ? "asynchronous" : "blocking")).string();
    CheckpointSaver saver(used);
    EXPECT_EQ(saver.newest(), "");
    for (int64_t step = 1; step <= 5; ++step) saver.save(make_snapshot(step));
    saver.wait(true);
    EXPECT_EQ(saver.newest(), checkpoint_path(used.folder, 5));
    EXPECT_EQ(checkpoint_steps(used.folder), (std::vector<int64_t>{4, 5}));
    EXPECT_EQ(newest_checkpoint(used.folder)->step(), 5);
    files[asynchronous ? 1 : 0] = tree(used.folder);
  }
  EXPECT_EQ(files[0], files[1]);
}

TEST_F(CheckpointSaverTest, TheCheckpointResumedFromIsKept) {
  write_checkpoint(folder_, make_snapshot(1));
  SaverOptions used = options(true);
  used.in_use = path(1);
  CheckpointSaver saver(used);
  for (int64_t step = 2; step <= 5; ++step) saver.save(make_snapshot(step));
  saver.wait(true);
  EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{1, 4, 5}));
}

// Rows 25 and 26.
TEST_F(CheckpointSaverTest, AFailedSaveIsAWarningUntilThereAreTooManyInARow) {
  for (const bool asynchronous : {false, true}) {
    SCOPED_TRACE(asynchronous);
    fs::remove_all(folder_);
    CheckpointSaver saver(options(asynchronous));
    saver.save(make_snapshot(1));
    saver.wait(true);
    const auto before = tree(folder_);
    for (int round = 0; round < 2; ++round) {  // a good save starts the count anew
      const int64_t warnings = log::lines(log::Level::kWarning);
      {
        FaultyFileSystem disk;
        disk.fail_every("sync", EIO);
        saver.save(make_snapshot(10 + round));
        saver.wait();
        saver.save(make_snapshot(20 + round));
        const Thrown required = thrown_by([&] { saver.wait(true); });
        EXPECT_EQ(required.code, ExitCode::kIo);
        EXPECT_TRUE(required.says("cannot sync: Input/output error")) << required.message;
      }
      EXPECT_EQ(log::lines(log::Level::kWarning), warnings + 2);
      EXPECT_EQ(saver.newest(), path(1 + round));
      if (round == 0) {
        EXPECT_EQ(tree(folder_), before);
      }
      saver.save(make_snapshot(2 + round));
      saver.wait(true);
    }
    FaultyFileSystem disk;
    disk.fail_every("write", ENOSPC);
    const Thrown thrown = thrown_by([&] {
      for (int64_t step = 30; step < 40; ++step) saver.save(make_snapshot(step));
    });
    EXPECT_EQ(thrown.code, ExitCode::kIo);
    EXPECT_TRUE(thrown.says("3 checkpoints in a row") && thrown.says("No space left")) << thrown.message;
    EXPECT_TRUE(thrown_by([&] { saver.wait(); }).says("3 checkpoints in a row"));
  }
  EXPECT_EQ(newest_checkpoint(folder_)->step(), 3);
}

TEST_F(CheckpointSaverTest, AMistakeOfTheProgramIsThrownAtOnce) {
  for (const bool asynchronous : {false, true}) {
    CheckpointSaver saver(options(asynchronous));
    Snapshot snapshot = make_snapshot(1);
    snapshot.model[1].name = snapshot.model[0].name;
    EXPECT_EQ(thrown_by([&] {
                saver.save(std::move(snapshot));
                saver.wait();
              }).code,
              ExitCode::kInternal);
  }
  EXPECT_FALSE(newest_checkpoint(folder_).has_value());
}

TEST_F(CheckpointSaverTest, OldOnesThatCannotBeDeletedAreAWarning) {
  CheckpointSaver saver(options(true));
  for (const int64_t step : {1, 2}) saver.save(make_snapshot(step));
  saver.wait(true);
  const int64_t warnings = log::lines(log::Level::kWarning);
  FaultyFileSystem disk;
  disk.fail_every("remove_file", EROFS);
  saver.save(make_snapshot(3));
  saver.wait(true);
  EXPECT_EQ(log::lines(log::Level::kWarning), warnings + 1);
  EXPECT_EQ(checkpoint_steps(folder_), (std::vector<int64_t>{2, 3}));
}

}  // namespace
}  // namespace mhmoe::train
