#include <gtest/gtest.h>

#include "cli/commands.h"
#include "cli/program.h"
#include "core/json.h"
#include "cpu/levels.h"
#include "train/config.h"
#include "train/flops.h"

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

// A build for one kind of processor (MHMOE_CPU_ARCH) names its kernels otherwise, so that a level lost is noticed.
class Levels : public Bench {
 protected:
  void SetUp() override {
    const std::string_view lowest = cpu::levels().front()->name;
    if (lowest == "built_for" || lowest == "portable") GTEST_SKIP() << "skipped: this build has no levels of kernels";
  }
  void expect_taken_if_asked(const std::string& level) {
    const Outcome outcome = run(fmt::format("{} --cpu-isa {}", kStep, level));
    if (outcome.code == 69 && outcome.err.find("this CPU lacks") != std::string::npos) {
      GTEST_SKIP() << "skipped: " << outcome.err;
    }
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_NE(outcome.out.find(fmt::format("on cpu (1 thread, {})", level)), std::string::npos) << outcome.out;
  }

  const std::string kStep = fmt::format("bench train {}", kSmall);
};

TEST_F(Levels, Avx2IsTakenIfAsked) {
  expect_taken_if_asked("avx2");
}
TEST_F(Levels, Avx512IsTakenIfAsked) {
  expect_taken_if_asked("avx512");
}
TEST_F(Levels, Avx512Bf16IsTakenIfAsked) {
  expect_taken_if_asked("avx512_bf16");
}

TEST_F(Levels, TheEnvironmentAsksAsTheOptionDoes) {
  const Outcome asked = run(kStep, "MHMOE_CPU_ISA=avx2");
  EXPECT_NE(asked.out.find("on cpu (1 thread, avx2)"), std::string::npos) << asked.out << asked.err;
  const Outcome unknown = run(kStep, "MHMOE_CPU_ISA=sse9");
  EXPECT_EQ(unknown.code, 64);
  expect_error_line(unknown, {"MHMOE_CPU_ISA: ", "\"sse9\"", "choose one of auto, avx2"});
  EXPECT_EQ(run(kStep, "MHMOE_CPU_ISA=").code, 0) << "as if it were not set";
}

// oneDNN may be held to less than the CPU has, which is then less for our kernels too.
TEST_F(Levels, WhatTheMachineLacksIsRefused) {
  const Outcome lacking = run(kStep + " --cpu-isa avx512_bf16", "ONEDNN_MAX_CPU_ISA=AVX2");
  EXPECT_EQ(lacking.code, 69);
  expect_error_line(lacking, {"--cpu-isa: this CPU lacks ", "avx512bf16", "the kernels \"avx512_bf16\"", "lower ones"});
}

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

double real(const json::Value& report, const char* name) {
  return json::member(report, name, json::Kind::kReal).real;
}

double sum_of(const json::Value& object) {
  double sum = 0;
  for (const json::Value& item : object.items) sum += item.real;
  return sum;
}

TEST_F(Bench, WholeStepsAndTheirParts) {
  const json::Value report = object(std::string("bench train ") + kSmall);
  for (const char* name : {"tokens_per_second", "model_flops_per_second", "share_of_peak", "seconds_per_step"}) {
    EXPECT_GT(real(report, name), 0) << name;
  }
  EXPECT_NEAR(real(report, "share_of_peak"),
              real(report, "model_flops_per_second") / real(report, "peak_flops_per_second"), 1e-12);
  EXPECT_NEAR(real(report, "tokens_per_second") * real(report, "seconds_per_step"), 64, 1e-9);
  const train::RunConfig config =
      train::load_config(folder_ / "tiny.json", std::vector<std::string>{"model.vocab_size=64"});
  const double flops_per_token = train::training_flops_per_token(config.model, config.data.sequence_length);
  EXPECT_DOUBLE_EQ(real(report, "model_flops_per_second"), real(report, "tokens_per_second") * flops_per_token);

  const json::Value& seconds = *report.find("seconds_by_part");
  for (const char* part : {"attention", "head_and_merge", "router", "dispatch", "experts", "combine", "norms", "loss",
                           "optimizer", "embedding", "feed_forward", "other", "between_ops"}) {
    EXPECT_GT(real(seconds, part), 0) << part;
  }
  EXPECT_NEAR(sum_of(seconds) / real(report, "observed_seconds_per_step"), 1, 1e-9);
  EXPECT_NEAR(real(report, "routing_share") * sum_of(seconds),
              real(seconds, "router") + real(seconds, "dispatch") + real(seconds, "combine"), 1e-9);
  EXPECT_GT(real(*report.find("floor_seconds_by_part"), "experts"), 0);

  const json::Value& rows = *report.find("rows_per_expert");
  EXPECT_LE(real(rows, "min"), real(rows, "median"));
  EXPECT_LE(real(rows, "median"), real(rows, "max"));
  EXPECT_GE(real(report, "dropped_fraction"), 0);
  EXPECT_GT(report.find("peak_memory_bytes")->integer, report.find("arena_bytes")->integer);
}

TEST_F(Bench, DroppedIsWhatTheCapacityLeavesOut) {
  const auto dropped = [&](const std::string& capacity) {
    const json::Value report =
        object(fmt::format("bench train {} --set model.moe.capacity_factor={}", kSmall, capacity));
    return real(report, "dropped_fraction");
  };
  EXPECT_EQ(dropped("null"), 0);
  EXPECT_EQ(dropped("4"), 0) << "4 experts: room for all rows in each";
  const double half = dropped("0.5");
  EXPECT_GE(half, 0.5);
  EXPECT_LT(half, 1);
}

TEST_F(Bench, ADenseModelHasNoPartsOfExperts) {
  const std::string dense = fmt::format("bench train {} --set model.moe.every_n_layers=0", kSmall);
  const json::Value report = object(dense);
  const json::Value& seconds = *report.find("seconds_by_part");
  for (const char* part : {"head_and_merge", "router", "dispatch", "experts", "combine"}) {
    EXPECT_EQ(real(seconds, part), 0) << part;
    EXPECT_EQ(real(*report.find("floor_seconds_by_part"), part), 0) << part;
  }
  EXPECT_GT(real(seconds, "feed_forward"), 0);
  for (const char* name : {"routing_share", "dropped_fraction"}) EXPECT_EQ(real(report, name), 0) << name;
  for (const char* name : {"min", "median", "max"}) EXPECT_EQ(real(*report.find("rows_per_expert"), name), 0) << name;
  const std::string text = output(dense);
  for (const char* part : {"expert", "dropped", "rout", "dispatch", "combine", "head_and"}) {
    EXPECT_EQ(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

// Parts are timed by waiting, which a ban on waits does not mean.
TEST_F(Bench, TrainSaysEverythingInText) {
  const std::string text = output(std::string("bench train ") + kSmall + " --set train.forbid_host_sync=true");
  for (const char* part : {"tokens/s", "share of peak", "rows per expert", "dropped", "memory", "attention", "router",
                           "between_ops", "sum", "floor ms"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST_F(Bench, MachinesPeaks) {
  const json::Value gemm = object("bench gemm --device cpu --threads 1 --sizes 64,96 --seconds 0");
  const json::Value& products = *gemm.find("products");
  double best = 0;
  for (const json::Value& product : products.items) {
    if (product.find("precision")->text == "fp32") best = std::max(best, real(product, "best_flops_per_second"));
  }
  EXPECT_EQ(real(*gemm.find("peak_flops_per_second"), "fp32"), best);
  EXPECT_NE(gemm.find("skipped") == nullptr, gemm.find("peak_flops_per_second")->find("bf16") == nullptr)
      << "bf16 is measured or said to be skipped";

  const std::string memory = "bench memory --device cpu --threads 1 --megabytes 1 --seconds 0";
  const json::Value report = object(memory);
  EXPECT_EQ(report.find("loops")->items.size(), 4u);
  EXPECT_GT(real(report, "peak_bytes_per_second"), 0);
  EXPECT_NE(output(memory).find("triad"), std::string::npos);
}

TEST_F(Bench, WhatModelsAreUsedFor) {
  const json::Value scored = object(std::string("bench evaluate ") + kSmall);
  EXPECT_EQ(scored.find("tokens")->integer, 32);
  EXPECT_NEAR(real(scored, "tokens_per_second") * real(scored, "seconds"), 32, 1e-9);
  const json::Value made = object(std::string("bench generate ") + kSmall + " --prompt-tokens 5 --tokens 3");
  EXPECT_NEAR(real(made, "prompt_tokens_per_second") * real(made, "prompt_seconds"), 5, 1e-9);
  EXPECT_GT(real(made, "tokens_per_second"), 0);
}

TEST_F(Bench, PreparationOfText) {
  const std::string options = "bench prepare --megabytes 1 --runs 1 --threads 1";
  const json::Value bytes = object(options + " --tokenizer bytes");
  EXPECT_GT(bytes.find("tokens")->integer, bytes.find("bytes")->integer) << "every byte, and an end a document";
  EXPECT_GT(bytes.find("bytes")->integer, 900'000);
  const json::Value trained = object(options + " --vocab-size 1000");
  EXPECT_GT(real(trained, "training_seconds"), 0);
  EXPECT_GT(real(trained, "bytes_per_second"), 0);
  EXPECT_LT(trained.find("tokens")->integer, bytes.find("tokens")->integer);
  expect_refused("bench prepare --input none.jsonl --tokenizer bytes", 66, {"none.jsonl"});
}

TEST_F(Bench, SaysWhatItNeeds) {
  expect_refused("bench ops tiny.json --floors --device cpu", 64, {"--device", "--floors"});
  expect_refused("bench ops tiny.json --floors --gpu h1", 64, {"--gpu", "h100"});
  expect_refused(std::string("bench train ") + kSmall + " --cpu-isa sse9", 64,
                 {"--cpu-isa: ", "\"sse9\"", "choose one of auto, "});
  expect_refused("bench", 64, {"subcommand"});
  expect_refused("bench ops tiny.json --floors --set model.vocab_size=null --set data.tokenizer=none.model", 66,
                 {"none.model", "model.vocab_size"});
}

}  // namespace
}  // namespace mhmoe::cli
