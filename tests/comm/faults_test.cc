// Ranks that die, hang, throw or do something else than the others: the whole job ends, soon, with one message.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "core/error.h"

namespace mhmoe::comm {
namespace {

namespace fs = std::filesystem;

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Outcome {
  int code = 0;
  double seconds = 0;
  std::string text;                 // both outputs
  std::vector<std::string> errors;  // its lines that start with "error: "
};

class Faults : public testing::Test {
 protected:
  Faults() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("mhmoe-comm-{}-{}", getpid(), test->name());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  // The driver under mpirun; it must leave no process.
  Outcome run(const std::string& fault, double timeout = 2, const std::string& environment = "") const {
    const std::string driver = fs::read_symlink("/proc/self/exe").parent_path() / "comm_driver";
    return run_shell(fmt::format("{} timeout 60 {} {} {} {} {}", environment, MHMOE_FOUR_RANKS, driver, fault, timeout,
                                 folder_.string()));
  }
  Outcome run_shell(const std::string& command) const {
    const auto begin = std::chrono::steady_clock::now();
    const int status = std::system(fmt::format("{} > '{}/out.txt' 2>&1", command, folder_.string()).c_str());
    Outcome outcome{.code = WEXITSTATUS(status),
                    .seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(),
                    .text = read_text(folder_ / "out.txt"),
                    .errors = {}};
    std::ifstream lines(folder_ / "out.txt");
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("error: ")) outcome.errors.push_back(line);
    }
    expect_no_process();
    return outcome;
  }

  static void expect_one_error(const Outcome& outcome, int code, double seconds,
                               const std::vector<std::string>& parts) {
    EXPECT_EQ(outcome.code, code) << outcome.text;
    EXPECT_LT(outcome.seconds, seconds) << outcome.text;
    ASSERT_EQ(outcome.errors.size(), 1u) << outcome.text;
    for (const std::string& part : parts) EXPECT_NE(outcome.errors[0].find(part), std::string::npos) << outcome.text;
  }

  // Processes that were started with this test's folder; those that have ended have no command line.
  void expect_no_process() const {
    const auto left = [&] {
      for (const auto& entry : fs::directory_iterator("/proc")) {
        const std::string command = read_text(entry.path() / "cmdline");
        if (command.find("comm_driver") != std::string::npos && command.find(folder_) != std::string::npos) return true;
      }
      return false;
    };
    for (int i = 0; i < 20 && left(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(left());
  }

  fs::path folder_;
};

TEST_F(Faults, WithoutOneTheJobEndsWell) {
  const Outcome outcome = run("none");
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_TRUE(outcome.errors.empty()) << outcome.text;
}

TEST_F(Faults, AKilledRankEndsTheJob) {
  const Outcome outcome = run("kill");
  EXPECT_EQ(outcome.code, 137) << outcome.text;
  EXPECT_LT(outcome.seconds, 10);
}

TEST_F(Faults, ARankThatDiesAtACollectiveEndsTheJob) {
  const Outcome outcome = run("die");
  EXPECT_EQ(outcome.code, 137) << outcome.text;
  EXPECT_LT(outcome.seconds, 10);
}

TEST_F(Faults, ARankThatExitsEndsTheJob) {
  const Outcome outcome = run("exit");
  EXPECT_EQ(outcome.code, 3) << outcome.text;
  EXPECT_LT(outcome.seconds, 10);
}

// 2 s until the watchdog finds it, and less than 5 from there.
constexpr double kAfterTimeout = 7;

TEST_F(Faults, AStoppedRankIsNamed) {
  expect_one_error(
      run("stop"), 81, kAfterTimeout,
      {"step 5", "all_to_all", "(layers.3.moe dispatch)", "rank 2 did not arrive", "after all_reduce", "stands still"});
}

TEST_F(Faults, ARankThatHangsElsewhereIsNamed) {
  expect_one_error(run("hang"), 81, kAfterTimeout,
                   {"step 5", "(layers.3.moe dispatch)", "rank 2 did not arrive", "outside of collectives"});
}

TEST_F(Faults, ARankStoppedWithinACollectiveIsNamed) {
  expect_one_error(run("stop_inside"), 81, kAfterTimeout,
                   {"all_reduce", "(gradients)", "rank 2 arrived, but is not there any more", "stands still"});
}

TEST_F(Faults, ADeviceThatHangsIsNamed) {
  expect_one_error(run("device"), 81, kAfterTimeout, {"rank 2 did not arrive", "waiting for its device"});
}

TEST_F(Faults, OneRanksDeviceEndsTheJobToo) {
  // The others wait for a message that the watchdog does not look at.
  const Outcome outcome = run("device_alone");
  expect_one_error(outcome, 81, kAfterTimeout,
                   {"rank 2: step 5: the device has not finished", "last given: all_reduce"});
  EXPECT_NE(outcome.text.find("given up"), std::string::npos) << outcome.text;
}

TEST_F(Faults, ADeviceThatCannotBeGivenUpEndsTheJobToo) {
  expect_one_error(run("hang_at_end"), 81, kAfterTimeout, {"rank 2: step 5: the device has not finished"});
}

TEST_F(Faults, TheFlightRecordGoesToItsFile) {
  const Outcome outcome = run("stop", 2, fmt::format("RUN_FOLDER='{}'", folder_.string()));
  EXPECT_EQ(outcome.code, 81);
  const std::string record = read_text(folder_ / "flight.log");
  for (const char* part : {"rank 0: last seen in step 5, in all_to_all", "rank 2: last seen in step 5, outside",
                           "of 256 bytes in step 4", "not left"}) {
    EXPECT_NE(record.find(part), std::string::npos) << part << " in\n" << record;
  }
  EXPECT_EQ(outcome.text.find("of 256 bytes"), std::string::npos) << outcome.text;
}

TEST_F(Faults, AnExceptionOfOneRankEndsTheJobWithItsCode) {
  expect_one_error(run("throw", 600), 80, 5, {"rank 2: the loss is not finite"});
  expect_one_error(run("throw_other", 600), 70, 5, {"rank 2: internal error", "please report"});
}

TEST_F(Faults, ASkippedCollectiveNamesBothRanks) {
  expect_one_error(run("skip", 600), 70, 5, {"ranks call different collectives", "rank 2", "all_reduce", "all_to_all"});
  expect_one_error(run("drop", 600), 70, 5, {"ranks call different collectives", "rank 2", "all_reduce", "all_to_all"});
}

TEST_F(Faults, AnotherSizeNamesBothRanks) {
  expect_one_error(run("size", 600), 70, 5, {"ranks call different collectives", "rank 2", "128 bytes", "256 bytes"});
}

TEST_F(Faults, AnotherPlaceNamesBothRanks) {
  expect_one_error(run("purpose", 600), 70, 5, {"rank 2", "(layers.5.moe dispatch)", "(layers.3.moe dispatch)"});
}

TEST_F(Faults, ARankThatIsDoneEarlyIsNamed) {
  expect_one_error(run("leave", 600), 70, 5, {"rank 2", "finish", "all_to_all"});
}

TEST_F(Faults, ASlowRankIsWarnedOfOnce) {
  const Outcome outcome = run("slow", 20);
  EXPECT_EQ(outcome.code, 0) << outcome.text;
  EXPECT_NE(outcome.text.find("warning: rank 2 is slow: in step 7"), std::string::npos) << outcome.text;
  EXPECT_EQ(outcome.text.find("slow"), outcome.text.rfind("slow")) << outcome.text;
}

TEST_F(Faults, WhatAllRanksFindIsSaidOnce) {
  const Outcome outcome = run("agreed", 600);
  expect_one_error(outcome, 78, 5, {"error: train.steps: 0 is not allowed"});
}

TEST_F(Faults, WhatOneRankFindsIsSaidByIt) {
  expect_one_error(run("agreed_one", 600), 66, 5, {"error: rank 2: no file x"});
}

TEST_F(Faults, AStopThatWasAskedForIsNoError) {
  const Outcome outcome = run("requeue", 600);
  EXPECT_EQ(outcome.code, 75) << outcome.text;
  EXPECT_TRUE(outcome.errors.empty()) << outcome.text;
  EXPECT_EQ(outcome.text.find("stopped by SIGTERM"), outcome.text.rfind("stopped by SIGTERM")) << outcome.text;
}

TEST_F(Faults, StartedAloneItNeedsNoMpi) {
  const std::string driver = fs::read_symlink("/proc/self/exe").parent_path() / "comm_driver";
  const Outcome bare = run_shell(fmt::format("'{}' place", driver));
  EXPECT_EQ(bare.code, 0) << bare.text;
  EXPECT_EQ(bare.text, "rank 0 of 1\n");
  const Outcome failed = run_shell(fmt::format("'{}' agreed", driver));
  expect_one_error(failed, 78, 5, {"error: train.steps"});
  const Outcome one = run_shell(fmt::format("{} -np 1 '{}' place", MHMOE_MPIRUN, driver));
  EXPECT_EQ(one.code, 0) << one.text;
  EXPECT_NE(one.text.find("rank 0 of 1\n"), std::string::npos) << one.text;
}

TEST_F(Faults, ALauncherThatCannotBringRanksTogetherIsNamed) {
  const std::string driver = fs::read_symlink("/proc/self/exe").parent_path() / "comm_driver";
  expect_one_error(run_shell(fmt::format("SLURM_STEP_NUM_TASKS=4 '{}' place", driver)), 69, 5, {"srun --mpi"});
  expect_one_error(run_shell(fmt::format("OMPI_COMM_WORLD_SIZE=4 '{}' place", driver)), 69, 5,
                   {"started 4 ranks, MPI knows of 1"});
}

}  // namespace
}  // namespace mhmoe::comm
