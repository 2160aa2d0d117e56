// Four ranks on the CPU, one of which fails somewhere in a step: the whole job ends, soon, and says who.
#include "cli/faults/rank_faults.h"

namespace mhmoe::cli {
namespace {

class RankFaults : public RankFaultsProgram {
 protected:
  void SetUp() override {
#ifndef MHMOE_MPIRUN
    GTEST_SKIP() << "skipped: MPI's headers or mpirun were not found";
#endif
  }
};

constexpr int kFaulty = 2;

constexpr double kTimeout = 3;

// In the second step, whose validation is its last part.
TEST_F(RankFaults, AnExceptionInAnyLayerEndsTheJobWithItsMessageAndCode) {
  const std::string arguments = settings("cpu", "");
  const std::vector<Event> all = events(kFaulty, arguments);
  const std::pair<const char*, bool> places[] = {
      {"op EmbeddingForward", false},  {"op AttentionForward", true},   {"op RouterForward", false},
      {"moe dispatch)", false},        {"op GroupedMatmul", true},      {"op CombineRows", false},
      {"op CrossEntropy", false},      {"moe combine of gradi", false}, {"op GroupedWeightGrad", true},
      {"op AttentionBackward", false}, {"op EmbeddingBackward", true},  {"(gradients)", true},
      {"op AdamUpdate", false},        {"moe combine)", true}};
  for (const auto& [what, last] : places) {
    SCOPED_TRACE(what);
    const std::vector<Event> found = of(all, 2, what);
    ASSERT_FALSE(found.empty());
    const End end = end_by("throw", kFaulty, last ? found.back() : found.front(), arguments);
    expect_end(end, 65, kSoon, {"error: rank 2: a planted error"});
  }
}

// A save that fails may be tried again, so it must be the last that may.
TEST_F(RankFaults, AnExceptionWhileACheckpointIsWrittenEndsTheJob) {
  const std::string arguments = settings("cpu", "--set checkpoint.max_failed_saves=1");
  const std::vector<Event> leader = events(0, arguments), other = events(kFaulty, arguments);
  const auto fails = [&](int code, int rank, const std::vector<Event>& found) {
    ASSERT_FALSE(found.empty());
    const Event& event = found[found.size() / 2];
    SCOPED_TRACE(event.what);
    expect_end(end_by("throw", rank, event, arguments), code, kSoon,
               {fmt::format("error: rank {}: ", rank), "a planted error"});
  };
  fails(74, 0, of(leader, 2, "file create runs/tiny/checkpoints"));
  fails(74, 0, of(leader, 2, "file rename runs/tiny/checkpoints"));
  fails(65, 0, of(leader, 2, "job receive"));
  fails(65, kFaulty, of(other, 2, "job send"));
}

// Every call of one step, in which each rank has one micro-batch.
TEST_F(RankFaults, ARankThatDiesAtAnyCommunicationOfAStepEndsTheJob) {
  const std::string arguments = settings("cpu", "--set train.batch_tokens=64 --set parallel.overlap_chunks=1");
  int calls = 0;
  for (const Event& event : events(kFaulty, arguments)) {
    if (event.step != 1 || !(event.is_collective() || event.is("job "))) continue;
    SCOPED_TRACE(event.what);
    const End end = end_by("kill", kFaulty, event, arguments);
    EXPECT_EQ(end.outcome.code, 137) << end.outcome.err;
    EXPECT_LT(end.seconds, kSoon) << end.outcome.err;
    ++calls;
  }
  EXPECT_GE(calls, 12);
}

TEST_F(RankFaults, ASkippedCollectiveNamesTheRanks) {
  const std::string arguments = settings("cpu", "--set parallel.timeout_seconds=3");
  const std::vector<Event> all = events(kFaulty, arguments);
  for (const char* what : {"moe row counts", "moe combine of gradients", "(gradients)"}) {
    SCOPED_TRACE(what);
    const std::vector<Event> found = of(all, 2, what);
    ASSERT_FALSE(found.empty());
    const End end = end_by("skip", kFaulty, found.front(), arguments);
    EXPECT_TRUE(end.outcome.code == 70 || end.outcome.code == 81) << end.outcome.code;
    // A rank that waits for a victim may speak first, and name the victim; the record has all four.
    expect_end(end, end.outcome.code, kTimeout + kSoon, {"step 2"});
    const std::string& errors = end.outcome.err;
    EXPECT_TRUE(errors.find(" did not arrive: last seen in step") != std::string::npos ||
                errors.find("different collectives") != std::string::npos)
        << errors;
    const std::string all_told = errors + read_text(folder_ / "runs/tiny/flight.log");
    EXPECT_NE(all_told.find("rank 2"), std::string::npos) << all_told;
  }
}

TEST_F(RankFaults, AStoppedRankIsNamedAndTheRecordOfAllIsInTheRunsFolder) {
  const std::string arguments = settings("cpu", "--set parallel.timeout_seconds=3");
  const std::vector<Event> all = events(kFaulty, arguments);
  for (const char* what : {"op RouterForward", "(gradients)"}) {
    SCOPED_TRACE(what);
    const End end = end_by("stop", kFaulty, of(all, 2, what).back(), arguments);
    expect_end(end, 81, kTimeout + kSoon, {"step 2", "rank 2", "stands still", "runs/tiny/flight.log"});
    const std::string record = read_text(folder_ / "runs/tiny/flight.log");
    EXPECT_NE(record.find("rank 2: last seen in step 2"), std::string::npos) << record;
    EXPECT_NE(record.find("(layers.1.moe dispatch)"), std::string::npos) << record;
  }
}

// As if there were two machines: ranks of the other are known by its file alone.
TEST_F(RankFaults, AStoppedRankOfAnotherNodeIsNamedByItsNodesFile) {
  const std::string arguments = settings("cpu", "--set parallel.timeout_seconds=3 --set parallel.ranks_per_node=2");
  const std::vector<Event> all = events(kFaulty, arguments);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "runs/tiny/heartbeats")) << "a run that ended well keeps none";
  const End other_node = end_by("stop", kFaulty, of(all, 2, "(gradients)").front(), arguments);
  expect_end(other_node, 81, kTimeout + kSoon, {"rank 2 did not arrive: last seen in step 2", "stands still"});
  const End leader_of_node = end_by("stop", kFaulty, of(all, 2, "(statistics)").front(), arguments);
  expect_end(leader_of_node, 81, kTimeout + kSoon, {"rank 0: step 2", "rank 2 did not arrive", "says node 1"});
  EXPECT_TRUE(std::filesystem::exists(folder_ / "runs/tiny/heartbeats/node-0001"));
}

TEST_F(RankFaults, AFlippedBitInFlightNamesStepLayerSenderAndReceiver) {
  const std::string arguments = settings("cpu", "--set parallel.verify_transfers=true");
  const std::vector<Event> all = events(kFaulty, arguments);
  const std::vector<Event> sent = of(all, 2, "moe dispatch)"), back = of(all, 2, "moe combine of gradients)");
  ASSERT_FALSE(sent.empty() || back.empty());
  // The last of the step is in its validation.
  for (const Event& event : {back.front(), sent.back()}) {
    const End end = end_by("flip", kFaulty, event, arguments);
    expect_end(end, 82, kSoon,
               {"rank 2: step 2: [layers.1.moe ", event.is("dispatch") ? "dispatch]" : "combine of gradients]",
                "reached rank 2 changed"});
  }
}

// Signals that come before MPI is there, while it starts, and at chance events before the second step.
TEST_F(RankFaults, AnEarlySignalIsNotedAndTheRunStopsSaved) {
  const std::string arguments = settings("cpu", "");
  const std::vector<Event> all = events(kFaulty, arguments);
  std::vector<Event> early = {of(all, 0, "job start").at(0), of(all, 0, "job started").at(0)};
  const auto second = static_cast<size_t>(of(all, 2, "").front().number - 1);
  for (const size_t chance : {83u, 1031u, 50021u}) early.push_back(all[chance % second]);
  for (const Event& event : early) {
    SCOPED_TRACE(event.what);
    const End end = end_by("signal", kFaulty, event, arguments);
    EXPECT_EQ(end.outcome.code, 75) << end.outcome.err;
    EXPECT_NE(end.outcome.err.find("stopped by SIGUSR1 after step 1 of 3"), std::string::npos) << end.outcome.err;
  }
}

}  // namespace
}  // namespace mhmoe::cli
