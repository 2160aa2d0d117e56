// Training by recorded work, and with waits forbidden, on the emulated CUDA device: every bit is what eager work gives.
#include <algorithm>

#include "cli/emulated_program.h"
#include "core/safetensors.h"

namespace mhmoe::cli {
namespace {

class EmulatedGraphs : public EmulatedProgram {
 protected:
  void train(const std::string& output, const std::string& settings, const std::string& under = "") const {
    const Outcome outcome =
        run(fmt::format("train tiny.json --threads 1 --device emulated --output-dir {} {}", output, settings), under);
    EXPECT_EQ(outcome.code, 0) << output << ": " << outcome.err;
  }

  // The numbers of each step, without times, as they were written.
  std::vector<std::string> numbers(const std::string& output) const {
    std::vector<std::string> all;
    for (const std::string& line : lines_of(read_text(folder_ / output / "tiny/metrics.jsonl"))) {
      const json::Value record = json::parse(line, "metrics.jsonl", ExitCode::kBadData);
      for (const json::Value& value : record.items) {
        const std::string& name = value.key;
        if (name.find('/') == name.npos || name == "train/tokens_per_second" || name == "train/mfu") continue;
        all.push_back(name + " " + value.text);
      }
    }
    return all;
  }

  // Weights and optimizer, as they were saved last. (The headers name the configuration, which is another.)
  void expect_same_state(const std::string& output, const std::string& eager) const {
    for (const char* part : {"model", "optimizer"}) {
      const std::string file = fmt::format("tiny/checkpoints/step-00000020/{}-00001-of-00001.safetensors", part);
      const SafetensorsFile expected((folder_ / eager / file).string()), found((folder_ / output / file).string());
      ASSERT_FALSE(expected.names().empty());
      for (const std::string& name : expected.names()) EXPECT_EQ(found.doubles(name), expected.doubles(name)) << name;
    }
  }
};

// With evaluations in between, and steps that the spike guard refuses: its threshold is far below what is ordinary.
TEST_F(EmulatedGraphs, TrainAsEagerWorkDoes) {
  const std::string settings =
      "--set train.steps=20 --set log.every_steps=1 --set evaluation.every_steps=5 --set checkpoint.every_steps=10 "
      "--set train.precision=bf16 --set train.recompute=block --set train.spike_guard.threshold=0.01";
  train("eager", settings);
  train("graphs", settings + " --set train.cuda_graphs=true --set train.forbid_host_sync=true",
        "env EMULATOR_STREAMS=deferred:1");
  const std::vector<std::string> expected = numbers("eager");
  EXPECT_EQ(numbers("graphs"), expected);
  EXPECT_LT(std::ranges::count(expected, "train/refused_steps 0"), 20) << "no step was refused";
  expect_same_state("graphs", "eager");
}

TEST_F(EmulatedGraphs, AreRefusedOnTheCpu) {
  expect_refused("train tiny.json --device cpu --set train.cuda_graphs=true", 78,
                 {"train.cuda_graphs is true, but cpu", "cannot record work; set it to false, or use --device cuda"});
}

}  // namespace
}  // namespace mhmoe::cli
