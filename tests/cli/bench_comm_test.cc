// `mhmoe bench comm CONFIG` as one rank and as several: what it counts can be computed by hand, and all of it arrives.
#include "cli/emulated_program.h"

namespace mhmoe::cli {
namespace {

class BenchComm : public RanksProgram {
 protected:
  void SetUp() override {
#ifndef MHMOE_MPIRUN
    GTEST_SKIP() << "skipped: MPI's headers or mpirun were not found";
#endif
  }

  Outcome bench(int ranks, const std::string& arguments) const {
    const std::string command =
        fmt::format("{} bench comm tiny.json --set model.vocab_size=64 --threads 1 --warmup 1 --calls 2 {} {}",
                    program(), kEightExperts, arguments);
    if (ranks == 1) return run_shell(command);
    return run_shell(
        fmt::format("export OMP_NUM_THREADS=1 ASAN_OPTIONS=\"$ASAN_OPTIONS:detect_leaks=0\"; "
                    "exec timeout 100 {} -np {} {}",
                    mpirun(), ranks, command));
  }
  static json::Value object_of(const Outcome& outcome) {
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return json::parse(outcome.out, "standard output", ExitCode::kBadData);
  }
  static double number(const json::Value& row, const char* key) {
    const json::Value* value = row.find(key);
    EXPECT_NE(value, nullptr) << key;
    return value->real;
  }
  static void expect_rows(const json::Value& report, int ranks) {
    const double row_bytes = number(report, "row_bytes");
    const json::Value& rows = *report.find("dispatch");
    ASSERT_GE(rows.items.size(), 8u) << "four routings, two capacities";
    double natural_busiest = 0, zipf_busiest = 0;
    for (const json::Value& row : rows.items) {
      const std::string routing = row.find("routing")->text;
      const bool dropless = row.find("capacity")->text == "dropless";
      const double sent = number(row, "sent_bytes") / row_bytes, all = number(row, "rows");
      EXPECT_EQ(number(row, "wrong"), 0) << routing;
      EXPECT_GT(number(row, "seconds"), 0);
      const bool even = routing == "balanced" || (routing == "one rank" && ranks == 1);
      EXPECT_EQ(number(row, "dropped_fraction") > 0, !dropless && !even) << routing;
      if (!dropless || routing == "balanced") {
        EXPECT_EQ(sent, all * (ranks - 1) / ranks) << routing;
        EXPECT_EQ(number(row, "busiest_rows"), all);
        EXPECT_EQ(number(row, "received_bytes"), number(row, "sent_bytes"));
      } else if (routing == "one rank") {
        EXPECT_EQ(sent, ranks == 1 ? 0 : all) << "the others send all they have";
        EXPECT_EQ(number(row, "received_bytes") / row_bytes, (ranks - 1) * all);
        EXPECT_EQ(number(row, "busiest_rows"), ranks * all);
      } else {
        (routing == "natural" ? natural_busiest : zipf_busiest) = number(row, "busiest_rows");
      }
    }
    if (ranks > 1) {
      EXPECT_GT(zipf_busiest, natural_busiest);
    }
  }
};

TEST_F(BenchComm, CountsWhatOneTwoAndFourRanksSend) {
  for (const int ranks : {1, 2, 4}) {
    const json::Value report = object_of(bench(ranks, "--device cpu --json"));
    EXPECT_EQ(number(report, "ranks"), ranks);
    EXPECT_EQ(number(report, "expert_parallel_size"), ranks);
    expect_rows(report, ranks);
  }
}

TEST_F(BenchComm, TakesTheRouteThatTrainingTakes) {
  const json::Value report = object_of(
      bench(4, "--device cpu --json --set parallel.ranks_per_node=2 --set parallel.hierarchical_all_to_all='\"on\"'"));
  EXPECT_EQ(number(report, "nodes"), 2);
  EXPECT_TRUE(report.find("hierarchical")->boolean);
  expect_rows(report, 4);
}

TEST_F(BenchComm, OnTheEmulatedDeviceIsAboutCorrectness) {
  const auto module = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libmhmoe_emulated.so";
  if (!std::filesystem::exists(module)) GTEST_SKIP() << "skipped: no CUDA headers were found when this was built";
  const Outcome outcome = bench(2, "--device emulated --set train.precision='\"bf16\"' --json");
  EXPECT_NE(outcome.err.find("never about speed"), std::string::npos) << outcome.err;
  expect_rows(object_of(outcome), 2);
}

TEST_F(BenchComm, ATableForPeopleAndErrorsForWhatHasNone) {
  const Outcome outcome = bench(1, "--device cpu");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  for (const char* part : {"# fixed capacity", "# dropless", "balanced", "natural", "zipf", "one rank", "#wrong"}) {
    EXPECT_NE(outcome.out.find(part), std::string::npos) << part << " in\n" << outcome.out;
  }
  expect_refused("bench comm tiny.json --device cpu --set model.moe.every_n_layers=0", 78, {"tiny", "dense"});
  expect_refused("bench comm tiny.json --device cpu --max-bytes 4096", 64, {"--max-bytes", "CONFIG"});
}

}  // namespace
}  // namespace mhmoe::cli
