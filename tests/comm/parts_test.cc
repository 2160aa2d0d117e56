// The parts that need no other process.
#include <gtest/gtest.h>

#include <sched.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "comm/affinity.h"
#include "comm/board.h"
#include "comm/counts.h"
#include "comm/launcher.h"
#include "comm/watchdog.h"
#include "core/error.h"

namespace mhmoe::comm {
namespace {

TEST(Counts, AreRefusedBeyondInt) {
  EXPECT_EQ(int_count(0, ""), 0);
  EXPECT_EQ(int_count(kLargestCount, ""), kLargestCount);
  EXPECT_THROW(int_count(kLargestCount + 1, ""), Error);
  EXPECT_THROW(int_count(-1, ""), Error);
}

TEST(Counts, ChunksAreTheWholeAndFit) {
  for (const int64_t largest : {int64_t{1}, int64_t{100}, kLargestCount}) {
    for (const int64_t total : {int64_t{0}, int64_t{1}, largest - 1, largest, largest + 1, 3 * largest + 17,
                                int64_t{1} << 40, (int64_t{1} << 40) + 1}) {
      const Chunks split = chunks_of(total, largest);
      EXPECT_EQ(split.chunk * split.chunks + split.rest, total) << largest;
      EXPECT_LE(split.chunk, largest) << total;
      EXPECT_TRUE(split.rest == 0 || split.rest < split.chunk) << total << " by " << largest;
    }
  }
}

class Environment : public testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }
  static void clear() {
    for (const char* name :
         {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"}) {
      unsetenv(name);
    }
  }
};

TEST_F(Environment, TellsWhoStartedUs) {
  EXPECT_FALSE(launched());
  EXPECT_EQ(launched_ranks(), std::nullopt);
  setenv("SLURM_PROCID", "0", 1);  // a batch script
  EXPECT_FALSE(launched());
  check_launcher();
  setenv("OMPI_COMM_WORLD_SIZE", "8", 1);
  EXPECT_TRUE(launched());
  EXPECT_EQ(launched_ranks(), 8);
}

TEST_F(Environment, SlurmWithAndWithoutMpi) {
  setenv("SLURM_STEP_NUM_TASKS", "4", 1);
  EXPECT_THROW(check_launcher(), Error);
  setenv("PMIX_RANK", "3", 1);
  check_launcher();
  EXPECT_EQ(launched_ranks(), 4);
}

TEST_F(Environment, MpichsLauncher) {
  setenv("PMI_RANK", "1", 1);
  setenv("PMI_SIZE", "2", 1);
  EXPECT_EQ(launched_ranks(), 2);
}

TEST(Affinity, ABoundRankGetsItsShareBack) {
  cpu_set_t before, one;
  ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
  if (CPU_COUNT(&before) < 2) GTEST_SKIP() << "skipped: one core";
  int first = 0;
  while (!CPU_ISSET(first, &before)) ++first;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
  const std::string told = spread_over_cores(0, 1);
  cpu_set_t after;
  ASSERT_EQ(sched_getaffinity(0, sizeof(after), &after), 0);
  EXPECT_GT(CPU_COUNT(&after), 1);
  EXPECT_NE(told.find("instead of the launcher's 1"), std::string::npos) << told;
  EXPECT_EQ(spread_over_cores(0, 1), "") << "nothing is left to widen";
  ASSERT_EQ(sched_setaffinity(0, sizeof(before), &before), 0);
}

TEST(Board, IsSeenByOthersAndGoesWithItsName) {
  Board mine = Board::create(3);
  const Board theirs = Board::open(mine.name(), 3);
  mine.unlink();
  EXPECT_THROW(Board::open(mine.name(), 3), Error);
  mine.of(2).step = 41;
  EXPECT_EQ(theirs.of(2).step, 41);
  EXPECT_EQ(theirs.of(1).step, 0);
  EXPECT_EQ(theirs.of(0).last(), std::nullopt);
}

TEST(Board, OneRankReports) {
  Board board = Board::create(2);
  EXPECT_TRUE(board.claim_report(1));
  EXPECT_FALSE(board.claim_report(0));
  EXPECT_FALSE(board.claim_report(1));
}

// All words of an operation are written alike: a reader never sees two writes at once.
TEST(Board, OperationsAreReadWhole) {
  PublishedOperation published{};
  std::jthread writer([&](const std::stop_token& stop) {
    for (int64_t i = 1; !stop.stop_requested(); ++i) {
      published.store({.group = static_cast<uint64_t>(i), .number = static_cast<uint64_t>(i), .bytes = i, .step = i});
    }
  });
  int seen = 0;
  while (seen < 200000) {
    const std::optional<Operation> operation = published.load();
    if (!operation) {
      std::this_thread::yield();
      continue;
    }
    ++seen;
    ASSERT_EQ(operation->bytes, operation->step);
    ASSERT_EQ(operation->group, static_cast<uint64_t>(operation->step));
  }
}

// Two ranks' watchdogs in one process, over one board.
class TwoWatchdogs : public testing::Test {
 protected:
  static Watchdog make(const std::string& name, int rank) {
    return {Board::open(name, 2), {0, 1}, rank, [](ExitCode, const std::function<void()>&) {}};
  }
  Board board_ = Board::create(2);
  Watchdog first_ = make(board_.name(), 0), second_ = make(board_.name(), 1);
  std::vector<int> both_{0, 1};
  void TearDown() override { board_.unlink(); }

  std::string second_enters(std::string_view kind, int64_t bytes, std::string_view purpose) {
    try {
      second_.enter(both_, kind, bytes, purpose);
      second_.leave();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(TwoWatchdogs, AgreeOnKindSizeAndPurpose) {
  for (int i = 0; i < 200; ++i) {
    first_.enter(both_, "all_gather", 8, "x");
    first_.leave();
    EXPECT_EQ(second_enters("all_gather", 8, "x"), "");
  }
  first_.enter(both_, "all_gather", 8, "x");
  EXPECT_NE(second_enters("all_gather", 16, "x"), "");
  first_.enter(both_, "all_gather", 8, "x");
  EXPECT_NE(second_enters("all_reduce", 8, "x"), "");
  first_.enter(both_, "all_gather", 8, "x");
  EXPECT_NE(second_enters("all_gather", 8, "y").find("rank 1 enters all_gather #203 (y)"), std::string::npos);
}

TEST_F(TwoWatchdogs, OtherGroupsAreOthersAffairs) {
  const std::vector<int> alone{1};
  first_.enter(both_, "all_gather", 8, "x");
  second_.enter(alone, "all_reduce", 4, "y");
  second_.leave();
  EXPECT_EQ(second_enters("all_gather", 8, "x"), "");
}

// As the first bucket of a step with many micro-batches' worth of exchanges after it.
TEST_F(TwoWatchdogs, AWaitForAnOperationThatIsKeptNoMoreTouchesNoOther) {
  const std::vector<int> alone{0};
  first_.enter(both_, "all_reduce", 8, "bucket");
  const int64_t bucket = first_.pause();
  for (int64_t i = 0; i <= RankBoard::kOperations; ++i) {
    first_.enter(alone, "all_to_all", 4, "y");
    first_.pause();
  }
  const RankBoard& board = board_.of(0);
  EXPECT_FALSE(board.keeps(bucket));
  EXPECT_TRUE(board.keeps(bucket + 2));
  first_.resume(bucket);
  EXPECT_NE(board.waiting_since, 0);
  first_.leave();
  EXPECT_EQ(board.waiting_since, 0);
  for (const auto& left : board.left) EXPECT_EQ(left, 0);
}

// The watchdog's own thread, with nothing of the operation left to tell of.
TEST_F(TwoWatchdogs, ATimeOutOfAnOperationThatIsKeptNoMoreSaysSo) {
  const std::vector<int> alone{0};
  first_.enter(both_, "all_reduce", 8, "bucket");
  const int64_t bucket = first_.pause();
  for (int64_t i = 0; i <= RankBoard::kOperations; ++i) {
    first_.enter(alone, "all_to_all", 4, "y");
    first_.pause();
  }
  testing::internal::CaptureStderr();
  first_.set_timeout(0.05);
  first_.resume(bucket);
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  first_.leave();
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_NE(text.find("a collective entered 512 or more before the last one has not finished"), std::string::npos)
      << text;
  EXPECT_NE(text.find("rank 1 is behind"), std::string::npos) << text;
  EXPECT_EQ(text.find("did not arrive"), std::string::npos) << text;
}

TEST_F(TwoWatchdogs, LongTextsAreCut) {
  const std::string text(500, 'x');
  first_.enter(both_, text, 8, text);
  EXPECT_EQ(second_enters(text, 8, text), "");
}

}  // namespace
}  // namespace mhmoe::comm
