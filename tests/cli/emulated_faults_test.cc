// A rank of the emulated CUDA device that is killed, stands still or fails amid training ends the whole job, soon.
#include <chrono>

#include "cli/emulated_program.h"

namespace mhmoe::cli {
namespace {

class EmulatedFaults : public RanksProgram {
 protected:
  using Clock = std::filesystem::file_time_type::clock;

  // Rank 2 gets the signal some steps after the first.
  Outcome run_with_signal(const std::string& signal, const std::string& streams) {
    const std::string in_background = fmt::format(
        "if [ $OMPI_COMM_WORLD_RANK = 2 ]; then (for i in $(seq 1200); do sleep 0.05; "
        "if [ -s runs/tiny/metrics.jsonl ]; then sleep 0.2; touch signalled; kill -{} $$; break; fi; "
        "done) & fi; {}",
        signal, streams);
    Outcome outcome = run_ranks(4, kEndless, in_background);
    seconds_ = std::chrono::duration<double>(Clock::now() - last_write_time(folder_ / "signalled")).count();
    return outcome;
  }

  // The first; another rank may find its own loss before it is ended.
  static void expect_first_error(const Outcome& outcome, const std::vector<std::string>& parts) {
    std::vector<std::string> errors;
    for (const std::string& line : lines_of(outcome.err)) {
      if (line.starts_with("error: ")) errors.push_back(line);
    }
    ASSERT_FALSE(errors.empty()) << outcome.err;
    for (const std::string& part : parts) EXPECT_NE(errors[0].find(part), std::string::npos) << outcome.err;
  }

  double seconds_ = 0;  // from the signal to the job's end

  // 2 s until the watchdog finds it, and less than 5 from there.
  static constexpr double kAfterTimeout = 7;
  static constexpr const char* kEndless =
      "--device emulated --set train.steps=100000 --set parallel.timeout_seconds=2 "
      "--set parallel.expert_parallel_size=2 --set model.moe.capacity_factor=1";
  static constexpr const char* kNcclFinds = "; export EMULATOR_NCCL_SECONDS=1 EMULATOR_NCCL_LATE=error";
};

TEST_F(EmulatedFaults, AKilledRankEndsTheJob) {
  const Outcome outcome = run_with_signal("KILL", kDeferred);
  EXPECT_EQ(outcome.code, 137) << outcome.err;
  EXPECT_LT(seconds_, kAfterTimeout) << outcome.err;
}

TEST_F(EmulatedFaults, AStoppedRankIsNamed) {
  for (const std::string& streams : {std::string("true"), std::string(kDeferred)}) {
    SCOPED_TRACE(streams);
    std::filesystem::remove_all(folder_ / "runs");
    const Outcome outcome = run_with_signal("STOP", streams);
    EXPECT_EQ(outcome.code, 81) << outcome.err;
    EXPECT_LT(seconds_, kAfterTimeout) << outcome.err;
    expect_first_error(outcome, {"rank 2", "stands still"});
  }
}

TEST_F(EmulatedFaults, AStoppedRankThatNcclFindsFirstEndsTheJob) {
  const Outcome outcome = run_with_signal("STOP", std::string(kDeferred) + kNcclFinds);
  EXPECT_EQ(outcome.code, 81) << outcome.err;
  EXPECT_LT(seconds_, kAfterTimeout) << outcome.err;
  expect_first_error(outcome, {});
}

TEST_F(EmulatedFaults, AKernelsFaultOnOneRankEndsTheJobWithItsCode) {
  const auto begin = std::chrono::steady_clock::now();
  const Outcome outcome = run_ranks(
      4, kEndless,
      fmt::format("{}; if [ $OMPI_COMM_WORLD_RANK = 2 ]; then export EMULATOR_FAIL=fault:900; fi", kDeferred));
  EXPECT_EQ(outcome.code, 69) << outcome.err;
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(20));
  expect_first_error(outcome, {"rank 2: ", "a kernel failed and this process can no longer use the device"});
}

}  // namespace
}  // namespace mhmoe::cli
