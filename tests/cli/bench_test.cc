#include <gtest/gtest.h>

#include "cli/commands.h"
#include "cli/program.h"
#include "core/json.h"

namespace mhmoe::cli {
namespace {

// Standard output of a command that must succeed.
class Bench : public ProgramTest {
 protected:
  std::string output(const std::string& arguments) {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    return outcome.out;
  }
  json::Value object(const std::string& arguments) {
    return json::parse(output(arguments + " --json"), "standard output", ExitCode::kBadData);
  }
};

constexpr const char* kSmall = "tiny.json --set model.vocab_size=64 --device cpu --threads 1 --warmup 0 --steps 1";

TEST_F(Bench, FloorsNeedNoDevice) {
  const std::string paper2 = MHMOE_SOURCE_DIR "/configs/paper2/mhmoe_h3.json";
  const std::string text = output("bench ops " + paper2 + " --floors");
  for (const char* part : {"grouped_weight_grad", "adam_update", "floor us", "floor of the step on H100 SXM"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
  const auto seconds = [&](const char* gpu) {
    return json::member(*object("bench ops " + paper2 + " --floors --gpu " + gpu).find("floor"), "seconds",
                        json::Kind::kReal)
        .real;
  };
  EXPECT_GT(seconds("a100"), seconds("h100"));
  EXPECT_GT(seconds("h100"), seconds("h200"));
}

TEST_F(Bench, EveryOpOfAStepIsTimed) {
  const json::Value report = object(std::string("bench ops ") + kSmall);
  const json::Value& ops = json::member(report, "ops", json::Kind::kArray);
  ASSERT_GT(ops.items.size(), 20u);
  for (const json::Value& op : ops.items) {
    // One micro-batch is timed; the sum of the micro-batches' losses is the only op whose shape is of all of them.
    if (op.find("shape")->text == "f32[2]") continue;
    ASSERT_NE(op.find("seconds"), nullptr) << json::to_line(op);
    EXPECT_GT(op.find("seconds")->real, 0) << json::to_line(op);
  }
  EXPECT_EQ(report.find("floor"), nullptr) << "no data sheet is known of a CPU";
  EXPECT_NE(output(std::string("bench ops ") + kSmall + " --gpu a100").find("of floor"), std::string::npos);
}

// Timing an op waits around it, which no recording and no ban on waits may forbid.
TEST_F(Bench, OpsAreTimedWithoutGraphsAndWithWaits) {
  output(std::string("bench ops ") + kSmall + " --set train.cuda_graphs=true --set train.forbid_host_sync=true");
}

TEST_F(Bench, WholeSteps) {
  const json::Value report = object(std::string("bench train ") + kSmall);
  for (const char* name : {"tokens_per_second", "model_flops_per_second", "share_of_peak", "seconds_per_step"}) {
    EXPECT_GT(json::member(report, name, json::Kind::kReal).real, 0) << name;
  }
  EXPECT_NE(output(std::string("bench train ") + kSmall).find("tokens/s"), std::string::npos);
}

TEST_F(Bench, SaysWhatItNeeds) {
  expect_refused("bench ops tiny.json --floors --device cpu", 64, {"--device", "--floors"});
  expect_refused("bench ops tiny.json --floors --gpu h1", 64, {"--gpu", "h100"});
  expect_refused("bench", 64, {"subcommand"});
  expect_refused("bench ops tiny.json --floors --set model.vocab_size=null --set data.tokenizer=none.model", 66,
                 {"none.model", "model.vocab_size"});
}

}  // namespace
}  // namespace mhmoe::cli
