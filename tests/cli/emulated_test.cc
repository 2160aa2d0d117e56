// The whole program on the emulated CUDA device: what it trains, scores, says and saves is what the CPU does, up to
// rounding.
#include "cli/emulated_program.h"
#include "core/safetensors.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

constexpr size_t kSteps = 30;

struct Variant {
  const char* name;
  const char* settings;
};
const Variant kVariants[] = {
    {"dense", "--set model.moe.every_n_layers=0"},
    {"smoe", "--set model.moe.heads=1 --set model.moe.top_k=1"},
    {"mhmoe_fixed_capacity", "--set model.moe.capacity_factor=1"},
    {"mhmoe_dropless", "--set model.moe.capacity_factor=null"},
    {"mhmoe_shared_expert", "--set model.moe.shared_expert_hidden_size=16 --set model.moe.router.normalize_top_k=true"},
    {"mhmoe_gelu_untied", "--set model.ffn.activation=gelu --set model.tie_embeddings=false"},
    {"mhmoe_recompute", "--set train.recompute=block"},
};

class EmulatedTraining : public EmulatedProgram {
 protected:
  Outcome train(const std::string& device, const std::string& output, const std::string& settings,
                const std::string& under = "") const {
    Outcome outcome = run(
        fmt::format("train tiny.json --threads 1 --device {} --output-dir {} {} {}", device, output, kCommon, settings),
        under);
    EXPECT_EQ(outcome.code, 0) << device << ": " << outcome.err;
    return outcome;
  }

  SafetensorsFile model(const std::string& output) const {
    return SafetensorsFile(
        (folder_ / output / "tiny/checkpoints/step-00000030/model-00001-of-00001.safetensors").string());
  }

  static constexpr const char* kCommon =
      "--set train.steps=30 --set log.every_steps=1 --set evaluation.every_steps=30 --set checkpoint.every_steps=10 "
      "--set checkpoint.keep_last=10";
};

TEST_F(EmulatedTraining, TrainsAsTheCpuDoes) {
  for (const Variant& variant : kVariants) {
    SCOPED_TRACE(variant.name);
    const std::string name = variant.name;
    train("emulated", name + "_emulated", variant.settings);
    train("cpu", name + "_cpu", variant.settings);
    expect_equal_losses(losses(name + "_emulated"), losses(name + "_cpu"), kSteps, fp32_tolerance);
  }
}

// bf16 has 8 bits: both devices round at the same places, but not always to the same side. The CPU with kernels that do
// not round probabilities: the plain attention that these small heads get on a device does not either.
TEST_F(EmulatedTraining, TrainsAsTheCpuDoesInBf16) {
  for (const char* settings : {"--set model.moe.capacity_factor=1", "--set model.moe.capacity_factor=null"}) {
    const std::string bf16 = fmt::format("--set train.precision=bf16 --cpu-isa avx2 {}", settings);
    train("emulated", "emulated", bf16 + " --overwrite");
    train("cpu", "cpu", bf16 + " --overwrite");
    expect_equal_losses(losses("emulated"), losses("cpu"), kSteps, bf16_tolerance);
  }
}

TEST_F(EmulatedTraining, GoesOnFromTheOtherDevicesCheckpoints) {
  train("cpu", "whole", "");
  for (const auto& [first, second] : {std::pair("cpu", "emulated"), std::pair("emulated", "cpu")}) {
    SCOPED_TRACE(fmt::format("{} then {}", first, second));
    const std::string output = fmt::format("{}_{}", first, second);
    train(first, output, "");
    for (const char* later : {"step-00000020", "step-00000030"}) {
      fs::remove_all(folder_ / output / "tiny/checkpoints" / later);
    }
    const Outcome outcome = train(second, output, "");
    EXPECT_NE(outcome.err.find("after step 10 of 30"), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find("goes on with"), std::string::npos) << outcome.err;
    expect_equal_losses(losses(output), losses("whole"), kSteps, fp32_tolerance);
  }
}

// What the program could not release is no finding that takes the place of the device's error.
TEST_F(EmulatedTraining, AKernelsFaultIsAnErrorOfTheDevice) {
  const Outcome outcome = run("train tiny.json --threads 1 --device emulated", "env EMULATOR_FAIL=fault:40");
  EXPECT_EQ(outcome.code, 69) << outcome.err;
  EXPECT_NE(outcome.err.find("a kernel failed and this process can no longer use the device"), std::string::npos)
      << outcome.err;
}

// Training's memory is taken at once, before the first step, so that it ends there if at all.
TEST_F(EmulatedTraining, OutOfMemorySaysWhatForAndWhatToChange) {
  const auto expect = [&](int64_t bytes, const std::string& asked, const std::string& other) {
    const Outcome outcome =
        run("train tiny.json --threads 1 --device emulated", fmt::format("env EMULATOR_FAIL=memory:{}", bytes));
    EXPECT_EQ(outcome.code, 71) << outcome.err;
    expect_error_line(outcome, {"CUDA: out of memory on rank 0, device 0: ", " bytes asked for, ", " bytes free", asked,
                                other, "use a smaller train.micro_batch_sequences"});
  };
  expect(int64_t{1} << 16, "asked for by the plan of the state memory: '", "; the step memory has 0.0 MiB;");
  expect(int64_t{1} << 20, "asked for by the plan of the step memory: '", "; the state memory has 0.1 MiB;");
}

TEST_F(EmulatedTraining, IsTheSameRunTwiceInAnyOrderOfThreadsAndWork) {
  train("emulated", "once", "");
  train("emulated", "twice", "", "env EMULATOR_ORDER=random:1 EMULATOR_STREAMS=deferred:1");
  EXPECT_EQ(losses("once"), losses("twice"));
  const SafetensorsFile once = model("once"), twice = model("twice");
  for (const std::string& name : once.names()) EXPECT_EQ(once.doubles(name), twice.doubles(name)) << name;
}

TEST_F(EmulatedTraining, ScoresAndContinuesTextAsTheCpuDoes) {
  train("cpu", "runs", "--set model.moe.capacity_factor=1");
  std::vector<json::Value> scores;
  std::vector<std::string> texts;
  for (const char* device : {"cpu", "emulated"}) {
    const Outcome scored = run(fmt::format("evaluate runs/tiny --threads 1 --json --device {}", device));
    ASSERT_EQ(scored.code, 0) << scored.err;
    scores.push_back(json::parse(scored.out, "output", ExitCode::kBadData));
    for (const char* cache : {"", "--no-cache"}) {
      const Outcome text =
          run(fmt::format("generate runs/tiny --threads 1 --prompt document --tokens 24 --temperature 0 {} --device {}",
                          cache, device));
      ASSERT_EQ(text.code, 0) << text.err;
      texts.push_back(text.out);
    }
  }
  const auto number = [&](size_t i, const char* name) {
    return scores[i].find("models")->items.at(0).find("validation")->items.at(0).find(name)->real;
  };
  for (const char* name : {"loss", "loss_dropless", "bits_per_byte"}) {
    EXPECT_NEAR(number(1, name), number(0, name), 2e-6 * number(0, name)) << name;
  }
  for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
}

}  // namespace
}  // namespace mhmoe::cli
