// The same on the emulated CUDA device and the emulated NCCL, at fewer places.
#include "cli/faults/rank_faults.h"

namespace mhmoe::cli {
namespace {

class EmulatedRankFaults : public RankFaultsProgram {
 protected:
  static constexpr int kFaulty = 2;
  static constexpr double kTimeout = 6;  // enough to start in, on a busy machine too

  // Work on streams as late as permitted.
  static constexpr const char* kStreams = "EMULATOR_STREAMS=deferred:7";
};

TEST_F(EmulatedRankFaults, AnExceptionEndsTheJobWithItsMessageAndCode) {
  const std::string arguments = settings("emulated", "");
  const std::vector<Event> all = events(kFaulty, arguments);
  for (const char* what : {"op AttentionForward", "op GroupedWeightGrad", "(gradients)"}) {
    SCOPED_TRACE(what);
    const std::vector<Event> found = of(all, 2, what);
    ASSERT_FALSE(found.empty());
    const End end = end_by("throw", kFaulty, found.back(), arguments, kRanks, kStreams);
    expect_end(end, 65, kSoon, {"error: rank 2: a planted error"});
  }
}

TEST_F(EmulatedRankFaults, OthersEndToo) {
  const std::string arguments = settings("emulated", "--set parallel.timeout_seconds=6");
  const std::vector<Event> all = events(kFaulty, arguments);
  const Event dispatch = of(all, 2, "moe dispatch)").front(), gradients = of(all, 2, "(gradients)").front();
  const End killed = end_by("kill", kFaulty, dispatch, arguments, kRanks, kStreams);
  EXPECT_EQ(killed.outcome.code, 137) << killed.outcome.err;
  EXPECT_LT(killed.seconds, kSoon) << killed.outcome.err;
  for (const Event& event : {dispatch, gradients}) {
    SCOPED_TRACE(event.what);
    const End skipped = end_by("skip", kFaulty, event, arguments, kRanks, kStreams);
    EXPECT_TRUE(skipped.outcome.code == 70 || skipped.outcome.code == 81) << skipped.outcome.code;
    expect_end(skipped, skipped.outcome.code, kTimeout + kSoon, {"rank 2"});
  }
  const End stopped = end_by("stop", kFaulty, gradients, arguments, kRanks, kStreams);
  expect_end(stopped, 81, kTimeout + kSoon, {"rank 2", "stands still", "flight.log"});
}

}  // namespace
}  // namespace mhmoe::cli
