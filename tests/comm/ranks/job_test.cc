// What ranks tell each other on the host: mpirun -np 4 test_comm_ranks.
#include <cstring>

#include "ranks.h"

namespace mhmoe::comm {
namespace {

TEST(Job, PlacesOfOneMachine) {
  EXPECT_EQ(job().size(), kRanks);
  EXPECT_EQ(job().nodes(), 1);
  EXPECT_EQ(job().node(), 0);
  EXPECT_EQ(job().local_rank(), job().rank());
  EXPECT_EQ(job().ranks_per_node(), kRanks);
}

TEST(Job, ConsecutiveRanksBecomeNodes) {
  configure_job({.ranks_per_node = 2});
  EXPECT_EQ(job().nodes(), 2);
  EXPECT_EQ(job().node(), job().rank() / 2);
  EXPECT_EQ(job().local_rank(), job().rank() % 2);
  EXPECT_EQ(job().ranks_per_node(), 2);
  EXPECT_THROW(configure_job({.ranks_per_node = 3}), Error);
  configure_job({.ranks_per_node = kRanks});
}

TEST(Job, Broadcast) {
  for (int root = 0; root < kRanks; ++root) {
    std::string text = "from " + std::to_string(job().rank());
    job().broadcast(text.data(), text.size(), root);
    EXPECT_EQ(text, "from " + std::to_string(root));
    job().broadcast(nullptr, 0, root);
  }
}

TEST(Job, GatherKeepsLengthsAndBytes) {
  const auto text = [](int rank) { return std::string(static_cast<size_t>(rank * 1000), static_cast<char>(rank)); };
  const std::vector<std::string> all = job().gather(text(job().rank()));
  ASSERT_EQ(all.size(), static_cast<size_t>(kRanks));
  for (int rank = 0; rank < kRanks; ++rank) EXPECT_EQ(all[static_cast<size_t>(rank)], text(rank));
}

TEST(Job, SumAndMaximum) {
  std::vector<int64_t> sums{job().rank(), int64_t{1} << 60, -job().rank()}, largest = sums;
  job().sum(sums);
  job().maximum(largest);
  EXPECT_EQ(sums, (std::vector<int64_t>{6, int64_t{1} << 62, -6}));
  EXPECT_EQ(largest, (std::vector<int64_t>{3, int64_t{1} << 60, 0}));
}

TEST(Job, MessagesInOrder) {
  const int next = (job().rank() + 1) % kRanks, previous = (job().rank() + kRanks - 1) % kRanks;
  for (const int number : {1, 2, 3}) {
    const int mine = job().rank() * 10 + number;
    job().send(&mine, sizeof(mine), next);
  }
  for (const int number : {1, 2, 3}) {
    int theirs = 0;
    job().receive(&theirs, sizeof(theirs), previous);
    EXPECT_EQ(theirs, previous * 10 + number);
  }
}

TEST(Job, AgreesThatAllIsWell) {
  agree(job(), {});
  agree_after(job(), [] {});
}

TEST(Job, AgreesOnTheLowestRanksError) {
  try {
    agree_after(job(), [] {
      if (job().rank() >= 2) fail(ExitCode::kBadData, "no use: {}", job().rank());
    });
    FAIL() << "nobody agreed";
  } catch (const AgreedError& error) {
    EXPECT_EQ(error.code(), ExitCode::kBadData);
    EXPECT_STREQ(error.what(), "rank 2: no use: 2");
    EXPECT_EQ(error.speaker(), 2);
  }
}

TEST(Job, AnErrorOfAllNamesNoRank) {
  try {
    agree(job(), Error(ExitCode::kConfig, "wrong everywhere"));
    FAIL() << "nobody agreed";
  } catch (const AgreedError& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    EXPECT_STREQ(error.what(), "wrong everywhere");
    EXPECT_EQ(error.speaker(), 0);
  }
}

}  // namespace
}  // namespace mhmoe::comm
