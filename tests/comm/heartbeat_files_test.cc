// The files by which nodes see each other's ranks.
#include "comm/heartbeat_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "comm/watchdog_report.h"
#include "core/error.h"
#include "core/log.h"

namespace mhmoe::comm {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kJob = 7, kGroup = 11;
constexpr double kPeriod = 0.02;

int64_t ago(double seconds) {
  return now() - static_cast<int64_t>(seconds * 1e9);
}

// Ranks 4 and 5 are node 1.
class HeartbeatFilesTest : public testing::Test {
 protected:
  HeartbeatFilesTest() {
    const auto* test = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("mhmoe-heartbeats-{}-{}", getpid(), test->name());
    for (RankBoard& board : boards_) board.heartbeat = now();
  }
  ~HeartbeatFilesTest() override { fs::remove_all(folder_); }

  HeartbeatFiles::Node node(int rank) const {
    return {.job = kJob, .number = 1, .ranks = {{4, boards_.data()}, {5, &boards_[1]}}, .rank = rank};
  }
  // The first file that is there within two seconds.
  std::optional<SeenNode> wait_for_file(uint64_t job = kJob) const {
    for (int i = 0; i < 200; ++i) {
      if (std::optional<SeenNode> seen = read_node(folder_, job, 1)) return seen;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return {};
  }
  static void enter(RankBoard& board, uint64_t number) {
    Operation operation{.group = kGroup, .number = number, .step = 9, .entered = ago(3), .kind = {'s', 'u', 'm'}};
    board.operations[static_cast<size_t>(board.entered % RankBoard::kOperations)].store(operation);
    ++board.entered;
  }

  fs::path folder_;
  std::array<RankBoard, 2> boards_{};
};

TEST_F(HeartbeatFilesTest, TellWhatRanksDidLastAndGoWithTheirWriter) {
  for (uint64_t number = 1; number <= 100; ++number) enter(boards_[0], number);
  boards_[0].left[98] = boards_[0].operations[98].load()->entered + 1'000'000'000;
  boards_[0].step = 9;
  boards_[0].waiting_since = ago(2.5);
  boards_[0].waiting_for = 99;
  {
    const HeartbeatFiles files(folder_, node(4), kPeriod);
    const std::optional<SeenNode> seen = wait_for_file();
    ASSERT_TRUE(seen);
    EXPECT_LT(seen->age, 10);
    EXPECT_EQ(seen->period, kPeriod);
    ASSERT_EQ(seen->ranks.size(), 2u);
    const RankBoard& rank = *seen->ranks.at(4);
    EXPECT_EQ(rank.step, 9);
    EXPECT_EQ(rank.entered, 100);
    for (uint64_t number = 69; number <= 100; ++number) EXPECT_TRUE(rank.find(kGroup, number)) << number;
    EXPECT_FALSE(rank.find(kGroup, 68));
    EXPECT_EQ(rank.arrival(kGroup, 68), Arrival::kYes);
    EXPECT_EQ(rank.arrival(kGroup, 101), Arrival::kNo);
    EXPECT_EQ(rank.arrival(kGroup + 1, 1), Arrival::kUnknown) << "the file does not tell of all";
    const std::string record = flight_record({{4, {seen->ranks.at(4), 1}}});
    EXPECT_NE(record.find("#99 in step 9, 0 ranks from rank 0: left after 1.000000 s"), std::string::npos) << record;
    EXPECT_NE(record.find("#100 in step 9, 0 ranks from rank 0: not left"), std::string::npos) << record;
    EXPECT_NEAR(seconds_of(now() - rank.waiting_since), 2.5, 2);
    EXPECT_NEAR(seconds_of(now() - rank.last()->entered), 3, 2);
    EXPECT_FALSE(seen->ranks.at(5)->last());
    EXPECT_FALSE(read_node(folder_, kJob + 1, 1)) << "of another job";
    EXPECT_FALSE(read_node(folder_, kJob, 2));
  }
  EXPECT_FALSE(fs::exists(folder_));
}

TEST_F(HeartbeatFilesTest, AreWrittenByTheLowestRankThatIsAwake) {
  const HeartbeatFiles second(folder_, node(5), kPeriod);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  EXPECT_FALSE(fs::exists(folder_)) << "rank 4 is awake";
  boards_[0].heartbeat = ago(30);
  const std::optional<SeenNode> seen = wait_for_file();
  ASSERT_TRUE(seen);
  EXPECT_TRUE(stands_still(*seen->ranks.at(4)));
}

TEST_F(HeartbeatFilesTest, AreRemovedByTheRankThatStillWritesThem) {
  {
    const HeartbeatFiles first(folder_, node(4), kPeriod);
    {
      const HeartbeatFiles second(folder_, node(5), kPeriod);
      boards_[0].heartbeat = ago(30);
      for (int i = 0; i < 200 && !fs::exists(folder_ / "node-0001"); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the second has written too
      boards_[0].heartbeat = now();
    }
    EXPECT_TRUE(fs::exists(folder_ / "node-0001"));
  }
  EXPECT_FALSE(fs::exists(folder_)) << "nor is a temporary file left";
}

TEST_F(HeartbeatFilesTest, ThatCannotBeWrittenAreToldOfOnce) {
  std::ofstream(folder_) << "no folder";
  const int64_t before = log::lines(log::Level::kWarning);
  testing::internal::CaptureStderr();
  {
    const HeartbeatFiles files(folder_, node(4), kPeriod);
    for (int i = 0; i < 200 && log::lines(log::Level::kWarning) == before; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  const std::string text = testing::internal::GetCapturedStderr();
  EXPECT_EQ(log::lines(log::Level::kWarning), before + 1);
  EXPECT_NE(text.find("node-0001: cannot be written: Not a directory"), std::string::npos) << text;
}

TEST_F(HeartbeatFilesTest, AreWholeOrNothing) {
  const HeartbeatFiles files(folder_, node(4), 1000);  // written once
  ASSERT_TRUE(wait_for_file());
  const fs::path path = folder_ / "node-0001";
  std::ifstream file(path, std::ios::binary);
  const std::string whole{std::istreambuf_iterator<char>(file), {}};
  const auto reads_as = [&](const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
    return read_node(folder_, kJob, 1).has_value();
  };
  EXPECT_TRUE(reads_as(whole));
  for (size_t size = 0; size < whole.size(); size += 97) EXPECT_FALSE(reads_as(whole.substr(0, size))) << size;
  for (size_t at = 0; at < whole.size(); at += 53) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 4);
    EXPECT_FALSE(reads_as(damaged)) << at;
  }
}

TEST(WatchdogReport, RanksOfOtherNodesAreNamedByTheirFiles) {
  const auto rank = [](int64_t step) {
    auto board = std::make_shared<RankBoard>();
    board->step = step;
    board->heartbeat = now();
    return board;
  };
  Operation operation{.group = kGroup, .number = 3, .step = 9, .kind = {'s', 'u', 'm'}};
  const auto arrived = rank(9);
  arrived->operations[0].store(operation);
  arrived->entered = 1;
  arrived->waiting_since = now();
  const auto went_on = rank(9);  // more than a board keeps, all of another group
  went_on->entered = RankBoard::kOperations + 1;
  for (PublishedOperation& other : went_on->operations) other.store({.group = kGroup + 1, .number = 1});
  const SeenRanks seen = {
      {0, {arrived}}, {1, {rank(8), 1, 0.5, false}}, {2, {arrived, 2, 40, true}}, {4, {went_on, 2, 40, false}}};
  const std::vector<int> group = {0, 1, 2, 3, 4};
  const std::string text = describe_missing(seen, operation, group);
  for (const char* part : {"rank 1 did not arrive: last seen in step 8", "says node 1, 0.5 s ago)",
                           "rank 2 arrived, but is not there any more", "says node 2, 40.0 s ago and not since",
                           "not seen from here: ranks 3, 4"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in: " << text;
  }
  EXPECT_EQ(text.find("rank 0"), std::string::npos) << text;
}

}  // namespace
}  // namespace mhmoe::comm
