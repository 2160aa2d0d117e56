// The whole program as several ranks on the CPU: one folder, the same bytes at every layout if that is asked for, one
// end for all.
#include <cstring>

#include "cli/emulated_program.h"
#include "plan/gpu.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

// What a safetensors file holds behind its header, which names the run.
std::string tensors_of(const fs::path& file) {
  const std::string text = read_text(file);
  uint64_t header = 0;
  if (text.size() < sizeof(header)) return "no file " + file.string();
  std::memcpy(&header, text.data(), sizeof(header));
  return text.substr(sizeof(header) + header);
}

class Ranks : public RanksProgram {
 protected:
  void SetUp() override {
#ifndef MHMOE_MPIRUN
    GTEST_SKIP() << "skipped: MPI's headers or mpirun were not found";
#endif
  }

  Outcome train(int ranks, const std::string& output, const std::string& settings) const {
    return run_ranks(ranks, fmt::format("--device cpu --output-dir {} {}", output, settings), ":");
  }
  void expect_trained(int ranks, const std::string& output, const std::string& settings) const {
    const Outcome outcome = train(ranks, output, settings);
    EXPECT_EQ(outcome.code, 0) << output << ": " << outcome.err;
  }
  // Weights and moments at the end.
  std::string state(const std::string& output) const {
    const fs::path checkpoint = folder_ / output / "tiny/checkpoints/step-00000006";
    return tensors_of(checkpoint / "model-00001-of-00001.safetensors") +
           tensors_of(checkpoint / "optimizer-00001-of-00001.safetensors");
  }
  static constexpr const char* kInvariant = "--set parallel.width_invariant=true";
};

TEST_F(Ranks, ARunThatGoesOnAtOtherNumbersOfRanksEndsInTheSameBytes) {
  const struct {
    int ranks, expert_parallel_size, last_step;
  } stretches[] = {{4, 2, 2}, {2, 2, 4}, {8, 4, 5}, {1, 1, 6}};
  for (const char* capacity : {"1", "null"}) {
    const std::string settings =
        fmt::format("{} --set model.moe.capacity_factor={} --set checkpoint.every_steps=1 --set checkpoint.keep_last=9",
                    kInvariant, capacity);
    const std::string alone = fmt::format("alone_{}", capacity), moved = fmt::format("moved_{}", capacity);
    expect_trained(1, alone, settings);
    for (const auto& [ranks, size, last_step] : stretches) {
      expect_trained(ranks, moved, fmt::format("{} --set parallel.expert_parallel_size={}", settings, size));
      for (int step = last_step + 1; step <= 6; ++step) {  // as if it had been stopped
        fs::remove_all(folder_ / moved / fmt::format("tiny/checkpoints/step-{:08}", step));
      }
    }
    EXPECT_TRUE(state(moved) == state(alone)) << "capacity " << capacity;
  }
}

TEST_F(Ranks, RoutingIsRecordedOfAllOfThem) {
  std::string alone;
  for (const int ranks : {1, 2, 4}) {
    const std::string output = fmt::format("of_{}", ranks);
    expect_trained(ranks, output, fmt::format("{} --set log.routing_every_steps=2", kInvariant));
    const std::string records = read_text(folder_ / output / "tiny/routing.jsonl");
    if (ranks == 1) alone = records;
    EXPECT_EQ(lines_of(records).size(), 4u) << "steps 1, 2, 4 and 6";
    EXPECT_EQ(records, alone) << ranks;
  }
}

// Chunks of experts, all experts at once, and rows without a capacity, on two nodes of two ranks.
TEST_F(Ranks, AHierarchicalAllToAllTrainsTheSameBytes) {
  for (const char* settings :
       {"--set model.moe.capacity_factor=1", "--set model.moe.capacity_factor=1 --set parallel.overlap_chunks=1",
        "--set model.moe.capacity_factor=null", "--set model.moe.capacity_factor=null --set model.moe.top_k=1"}) {
    SCOPED_TRACE(settings);
    std::string states[2], hashes[2];
    for (const bool on : {false, true}) {
      const std::string output = on ? "steps" : "direct";
      const Outcome outcome = train(4, output,
                                    fmt::format("--overwrite --set parallel.ranks_per_node=2 --set "
                                                "parallel.hierarchical_all_to_all={} {}",
                                                on ? "on" : "off", settings));
      EXPECT_EQ(outcome.code, 0) << outcome.err;
      EXPECT_EQ(outcome.err.find("inside the node first") != std::string::npos, on) << outcome.err;
      states[on] = state(output);
      hashes[on] = records(output).back().find("run_hash")->text;
    }
    EXPECT_TRUE(states[0] == states[1]);
    EXPECT_EQ(hashes[0], hashes[1]);
  }
}

TEST_F(Ranks, OnlyOneSpeaksAndEachLineIsThereOnce) {
  const Outcome outcome = train(4, "runs", "");
  EXPECT_EQ(outcome.code, 0);
  size_t steps = 0;
  for (const std::string& line : lines_of(outcome.err)) steps += line.find("| loss") != std::string::npos ? 1 : 0;
  EXPECT_EQ(steps, 6u) << outcome.err;
  EXPECT_NE(outcome.err.find("4 ranks"), std::string::npos) << outcome.err;
}

TEST_F(Ranks, AreTimedTogether) {
  const Outcome outcome =
      run_shell(fmt::format("export OMP_NUM_THREADS=1; timeout 60 {} -np 2 {} bench train tiny.json --device cpu "
                            "--steps 2 --json --gpu h100 --set "
                            "parallel.expert_parallel_size=2",
                            mpirun(), program()));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  ASSERT_EQ(lines_of(outcome.out).size(), 1u) << outcome.out;
  const json::Value report = json::parse(outcome.out, "standard output", ExitCode::kBadData);
  EXPECT_EQ(json::member(report, "ranks", json::Kind::kInteger).integer, 2);
  EXPECT_EQ(json::member(report, "expert_parallel_size", json::Kind::kInteger).integer, 2);
  const double model = json::member(report, "model_flops_per_second", json::Kind::kReal).real;
  const double promised = 2 * plan::find_gpu("h100").flops(DType::kF32);
  EXPECT_NEAR(json::member(report, "mfu", json::Kind::kReal).real * promised / model, 1, 1e-6) << "two GPUs' peak";
  const double step = json::member(report, "seconds_per_step", json::Kind::kReal).real;
  for (const char* kind : {"all_to_all", "reduction", "gather"}) {
    const double waiting = json::member(*report.find("waiting_seconds_per_step"), kind, json::Kind::kReal).real;
    EXPECT_GT(waiting, 0) << kind;
    EXPECT_LT(waiting, step) << kind;
  }
}

TEST_F(Ranks, WhatDoesNotDivideIsRefusedWithWhatWould) {
  const Outcome batch = train(3, "runs", "");
  EXPECT_EQ(batch.code, 78);
  EXPECT_NE(batch.err.find("do not divide over 3 ranks; with this batch there can be 1, 2, 4, 8 ranks"),
            std::string::npos)
      << batch.err;
  const Outcome experts = train(4, "runs", "--set parallel.expert_parallel_size=3");
  EXPECT_EQ(experts.code, 78);
  EXPECT_NE(experts.err.find("possible are 1, 2, 4"), std::string::npos) << experts.err;
  const Outcome tree = train(2, "runs", "--set parallel.width_invariant=true --set train.batch_tokens=96");
  EXPECT_EQ(tree.code, 78);
  EXPECT_NE(tree.err.find("both must be powers of two"), std::string::npos) << tree.err;
  EXPECT_FALSE(fs::exists(folder_ / "runs"));
}

TEST_F(Ranks, WithDifferentConfigurationsAreRefusedByName) {
  const std::string command = fmt::format(
      "export OMP_NUM_THREADS=1; timeout 60 {} -np 2 {} train tiny.json : -np 1 {} train tiny.json --set "
      "train.learning_rate.peak=0.5 : -np 1 {} train tiny.json",
      mpirun(), program(), program(), program());
  const Outcome outcome = run_shell(command);
  EXPECT_EQ(outcome.code, 78) << outcome.err;
  EXPECT_NE(outcome.err.find("; rank 2 has \"learning_rate\": {\"peak\": 0.5"), std::string::npos) << outcome.err;
  EXPECT_NE(outcome.err.find("ranks 0, 1, 3 have"), std::string::npos) << outcome.err;
}

TEST_F(Ranks, ASignalToTheLauncherSavesAndTheSameCommandGoesOnToTheSameBytes) {
  const std::string slow = "--set train.steps=400 --set evaluation.every_steps=400 --set checkpoint.every_steps=0";
  expect_trained(2, "whole", slow);
  const Outcome stopped = run_shell(fmt::format(
      "export OMP_NUM_THREADS=1; {} -np 2 {} train tiny.json --threads 1 {} --output-dir stopped {} & "
      "launcher=$!; while ! grep -q 'step  *3/' err.txt; do sleep 0.02; done; kill -USR1 $launcher; wait $launcher",
      mpirun(), program(), kEightExperts, slow));
  EXPECT_EQ(stopped.code, 75) << stopped.err;
  EXPECT_NE(stopped.err.find("stopped by SIGUSR1 after step"), std::string::npos) << stopped.err;
  expect_trained(2, "stopped", slow);
  const auto model = [&](const char* output) {
    return tensors_of(folder_ / output / "tiny/checkpoints/step-00000400/model-00001-of-00001.safetensors");
  };
  EXPECT_TRUE(model("stopped") == model("whole"));
}

TEST_F(Ranks, AKilledOneEndsTheJobAndAStoppedOneIsNamed) {
  const std::string settings =
      "--set train.steps=100000 --set evaluation.every_steps=100000 --set log.every_steps=1 "
      "--set checkpoint.every_steps=0 --set parallel.timeout_seconds=2";
  const auto with_signal = [&](const char* signal) {
    return run_shell(fmt::format(
        "export OMP_NUM_THREADS=1; timeout 60 {} -np 4 sh -c 'echo $$ > pid.$OMPI_COMM_WORLD_RANK; exec {} train "
        "tiny.json "
        "--threads 1 {} --output-dir {} {}' & launcher=$!; while ! grep -q 'step  *3/' err.txt; do sleep 0.02; done; "
        "kill -{} $(cat pid.2); start=$(date +%s); wait $launcher; code=$?; echo $(( $(date +%s) - start )); exit "
        "$code",
        mpirun(), program(), kEightExperts, signal, settings, signal));
  };
  const Outcome killed = with_signal("KILL");
  EXPECT_NE(killed.code, 0);
  EXPECT_LT(std::stoi(killed.out), 10) << killed.err;
  const Outcome hung = with_signal("STOP");
  EXPECT_EQ(hung.code, 81) << hung.err;
  EXPECT_LT(std::stoi(hung.out), 10) << hung.err;
  EXPECT_NE(hung.err.find("rank 2"), std::string::npos) << hung.err;
}

}  // namespace
}  // namespace mhmoe::cli
