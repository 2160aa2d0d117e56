// The whole program as several ranks of the emulated CUDA device and the emulated NCCL: what it trains is what the same
// ranks train on the CPU, up to rounding, and the same bytes whatever the order of work on streams.
// Tried: without the wait for rows in comm/dispatch.cc the loss of the first step is not a number, with a capacity and
// without, as memory that nothing was written to holds none; without the one in finish() of train/gradients.cc a
// capture fails with "unjoined work" (69).
#include "cli/emulated_program.h"
#include "core/safetensors.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSteps = 6;

struct Variant {
  const char* name;
  int ranks;
  const char* settings;
  const char* of_device;  // only there
  double (*tolerance)(double);
};
constexpr const char* kRecorded = "--set train.cuda_graphs=true --set train.forbid_host_sync=true";
const Variant kVariants[] = {
    {"2_data_fixed", 2, "--set model.moe.capacity_factor=1", kRecorded, fp32_tolerance},
    {"2_experts_dropless", 2, "--set parallel.expert_parallel_size=2 --set parallel.overlap_chunks=2", "",
     fp32_tolerance},
    {"4_data_dropless", 4, "", kRecorded, fp32_tolerance},
    {"4_both_dropless_bf16", 4, "--set parallel.expert_parallel_size=2 --set train.precision=bf16", "", bf16_tolerance},
    {"4_both_fixed", 4,
     "--set parallel.expert_parallel_size=2 --set parallel.overlap_chunks=2 --set model.moe.capacity_factor=1",
     kRecorded, fp32_tolerance},
    {"4_experts_fixed_bf16", 4,
     "--set parallel.expert_parallel_size=4 --set parallel.overlap_chunks=2 --set model.moe.capacity_factor=1 "
     "--set train.precision=bf16",
     kRecorded, bf16_tolerance},
    {"2_experts_verified", 2, "--set parallel.expert_parallel_size=2 --set parallel.verify_transfers=true", "",
     fp32_tolerance},
};

class EmulatedRanks : public RanksProgram {
 protected:
  Outcome train(int ranks, const std::string& device, const std::string& output, const std::string& settings,
                const char* before = kDeferred) const {
    Outcome outcome = run_ranks(ranks, fmt::format("--device {} --output-dir {} {}", device, output, settings), before);
    EXPECT_EQ(outcome.code, 0) << output << ": " << outcome.err;
    return outcome;
  }

  // (The run's hash begins with the configuration, in which train.cuda_graphs is another.)
  std::vector<std::string> numbers(const std::string& output) const {
    std::vector<std::string> all;
    for (const json::Value& record : records(output)) {
      for (const char* name : {"train/loss", "train/grad_norm", "train/balance_loss", "moe/dropped_fraction"}) {
        all.push_back(record.find(name)->text);
      }
    }
    return all;
  }

  SafetensorsFile model(const std::string& output) const {
    return SafetensorsFile(
        (folder_ / output / "tiny/checkpoints/step-00000006/model-00001-of-00001.safetensors").string());
  }
};

TEST_F(EmulatedRanks, TrainAsTheCpuDoes) {
  for (const Variant& variant : kVariants) {
    SCOPED_TRACE(variant.name);
    const std::string name = variant.name;
    train(variant.ranks, "emulated", name + "_emulated", fmt::format("{} {}", variant.settings, variant.of_device));
    train(variant.ranks, "cpu", name + "_cpu", variant.settings);
    expect_equal_losses(losses(name + "_emulated"), losses(name + "_cpu"), kSteps, variant.tolerance);
  }
}

TEST_F(EmulatedRanks, TrainTheSameBytesInAnyOrderOfWork) {
  const std::string fixed = "--set parallel.expert_parallel_size=2 --set model.moe.capacity_factor=1 ";
  train(4, "emulated", "eager", fixed, "true");
  const std::vector<std::string> expected = numbers("eager");
  ASSERT_EQ(expected.size(), 4 * kSteps);
  const SafetensorsFile weights = model("eager");
  for (const auto& [name, settings] :
       {std::pair("deferred_chunks", "--set parallel.overlap_chunks=2"),
        std::pair("graphs", "--set train.cuda_graphs=true"),
        std::pair("graphs_chunks", "--set train.cuda_graphs=true --set parallel.overlap_chunks=2")}) {
    SCOPED_TRACE(name);
    train(4, "emulated", name, fixed + settings);
    EXPECT_EQ(numbers(name), expected);
    const SafetensorsFile found = model(name);
    for (const std::string& tensor : weights.names())
      EXPECT_EQ(found.doubles(tensor), weights.doubles(tensor)) << tensor;
  }
}

// Rows of a capacity go in two steps, packed by copies on the compute stream; others, of which the host would have to
// know more, directly.
TEST_F(EmulatedRanks, AHierarchicalAllToAllTrainsTheSameBytes) {
  for (const char* settings : {"--set model.moe.capacity_factor=1", "--set model.moe.capacity_factor=null",
                               "--set model.moe.capacity_factor=1 --set train.cuda_graphs=true"}) {
    SCOPED_TRACE(settings);
    const std::string nodes = fmt::format("--overwrite --set parallel.ranks_per_node=2 {} ", settings);
    train(4, "emulated", "direct", nodes + "--set parallel.hierarchical_all_to_all=off");
    const Outcome steps = train(4, "emulated", "steps", nodes + "--set parallel.hierarchical_all_to_all=on");
    EXPECT_NE(steps.err.find("inside the node first"), std::string::npos) << steps.err;
    EXPECT_EQ(numbers("steps"), numbers("direct"));
    const SafetensorsFile weights = model("direct"), found = model("steps");
    for (const std::string& tensor : weights.names())
      EXPECT_EQ(found.doubles(tensor), weights.doubles(tensor)) << tensor;
  }
}

TEST_F(EmulatedRanks, GoOnFromCheckpointsOfOtherDevicesAndLayouts) {
  const std::string common = "--set checkpoint.every_steps=3 --set checkpoint.keep_last=10 ";
  const std::string four = common + "--set parallel.expert_parallel_size=4";
  const std::string two = common + "--set parallel.expert_parallel_size=2";
  train(4, "cpu", "whole", four);
  struct Part {
    int ranks;
    const char* device;
    std::string settings;
  };
  const Part emulated{4, "emulated", four}, cpu{2, "cpu", two};
  for (const auto& [first, second] : {std::pair(emulated, cpu), std::pair(cpu, emulated)}) {
    SCOPED_TRACE(fmt::format("{} then {}", first.device, second.device));
    const std::string output = first.device;
    train(first.ranks, first.device, output, first.settings);
    fs::remove_all(folder_ / output / "tiny/checkpoints/step-00000006");
    const Outcome outcome = train(second.ranks, second.device, output, second.settings);
    EXPECT_NE(outcome.err.find("after step 3 of 6"), std::string::npos) << outcome.err;
    expect_equal_losses(losses(output), losses("whole"), kSteps, fp32_tolerance);
  }
}

}  // namespace
}  // namespace mhmoe::cli
