// Tests that train on the emulated CUDA device, alone or as several ranks, and compare with the CPU.
#pragma once

#include <cmath>

#include "cli/program.h"
#include "core/json.h"

namespace mhmoe::cli {

// The loss is read from f32, and each update may add a rounding of its own. (Seen in 30 steps of the tiny MH-MoE: at
// most 2^-23.)
inline double fp32_tolerance(double step) {
  return (2 + step) * 0x1p-24;
}
// Both devices round weights and activations at the same places, but not always to the same side: a fourth of a unit.
// (Seen: 2^-12.)
inline double bf16_tolerance(double /*step*/) {
  return 0x1p-8;  // a rounding to the other side can send a row to another expert
}

class EmulatedProgram : public ProgramTest {
 protected:
  void SetUp() override {
    const auto module = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libmhmoe_emulated.so";
    if (!std::filesystem::exists(module)) GTEST_SKIP() << "skipped: no CUDA headers were found when this was built";
  }

  std::vector<json::Value> records(const std::string& output) const {
    std::vector<json::Value> all;
    for (const std::string& line : lines_of(read_text(folder_ / output / "tiny/metrics.jsonl"))) {
      json::Value record = json::parse(line, "metrics.jsonl", ExitCode::kBadData);
      if (record.find("train/loss") != nullptr) all.push_back(std::move(record));
    }
    return all;
  }

  std::vector<double> losses(const std::string& output) const {
    std::vector<double> all;
    for (const json::Value& record : records(output)) all.push_back(record.find("train/loss")->real);
    return all;
  }

  // tolerance: relative to the loss, of the step counted from 1.
  static void expect_equal_losses(const std::vector<double>& emulated, const std::vector<double>& cpu, size_t steps,
                                  double tolerance(double step)) {
    ASSERT_EQ(cpu.size(), steps);
    ASSERT_EQ(emulated.size(), steps);
    for (size_t i = 0; i < steps; ++i) {
      EXPECT_LE(std::abs(emulated[i] - cpu[i]), tolerance(static_cast<double>(i + 1)) * cpu[i]) << "step " << i + 1;
    }
    EXPECT_LT(cpu.back(), 0.9 * cpu.front()) << "nothing was learned";
  }
};

// The program as several ranks.
class RanksProgram : public EmulatedProgram {
 protected:
  void SetUp() override {
    EmulatedProgram::SetUp();
#ifndef MHMOE_MPIRUN
    GTEST_SKIP() << "skipped: MPI's headers or mpirun were not found";
#endif
  }

  static const char* mpirun() {
#ifdef MHMOE_MPIRUN
    return MHMOE_MPIRUN;
#else
    return "";
#endif
  }

  // before: shell commands that every rank runs first, in which $OMPI_COMM_WORLD_RANK is its number.
  Outcome run_ranks(int ranks, const std::string& arguments, const std::string& before) const {
    // MPI itself leaks at its end.
    return run_shell(
        fmt::format("export OMP_NUM_THREADS=1 ASAN_OPTIONS=\"$ASAN_OPTIONS:detect_leaks=0\"; "
                    "exec timeout 100 {} -np {} sh -c '{}; exec {} train tiny.json --threads 1 {} {}'",
                    mpirun(), ranks, before, program(), kEightExperts, arguments));
  }

  static constexpr const char* kEightExperts =
      "--set model.moe.experts=8 --set train.batch_tokens=128 --set train.micro_batch_sequences=1 "
      "--set log.every_steps=1";
  // Work on streams as late and in as odd an order as is permitted, another one on every rank.
  static constexpr const char* kDeferred = "export EMULATOR_STREAMS=deferred:$((OMPI_COMM_WORLD_RANK + 11))";
};

}  // namespace mhmoe::cli
