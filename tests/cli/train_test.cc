#include <algorithm>
#include <cmath>

#include "cli/program.h"
#include "core/json.h"
#include "core/safetensors.h"

namespace mhmoe::cli {
namespace {

using TrainCommand = ProgramTest;

// Of the last step, within a run's folder.
constexpr const char* kModel = "checkpoints/step-00000006/model-00001-of-00001.safetensors";

std::vector<json::Value> json_lines(const std::filesystem::path& path) {
  std::vector<json::Value> values;
  for (const std::string& line : lines_of(read_text(path))) {
    values.push_back(json::parse(line, path.string(), ExitCode::kBadData));
  }
  return values;
}

// The table that train and evaluate share: its heading and the set's line.
std::vector<std::string> score_lines(const std::string& out) {
  std::vector<std::string> lines = lines_of(out);
  lines.resize(std::min<size_t>(lines.size(), 2));
  return lines;
}

TEST_F(TrainCommand, LeavesAWholeRunFolder) {
  const Outcome outcome = run("train tiny.json --threads 1");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  for (const char* name : {"config.json", "log.txt", "status.json", "metrics.jsonl", "perplexity.csv", "routing.jsonl",
                           "tensorboard", "checkpoints/latest", kModel}) {
    EXPECT_TRUE(std::filesystem::exists(folder_ / "runs/tiny" / name)) << name;
  }
  EXPECT_NE(outcome.out.find("held_out"), std::string::npos);
  EXPECT_NE(read_text(folder_ / "runs/tiny/log.txt").find("step 6/6"), std::string::npos);
  EXPECT_EQ(outcome.err.find('\r'), std::string::npos) << "a progress bar without a terminal";
}

TEST_F(TrainCommand, MetricsHoldLoggedAndValidatedSteps) {
  ASSERT_EQ(run("train tiny.json --threads 1").code, 0);
  const std::vector<json::Value> records = json_lines(folder_ / "runs/tiny/metrics.jsonl");
  std::vector<int64_t> steps;
  for (const json::Value& record : records) steps.push_back(record.find("step")->integer);
  EXPECT_EQ(steps, (std::vector<int64_t>{1, 2, 3, 4, 6}));
  for (const json::Value& record : records) {
    const int64_t step = record.find("step")->integer;
    EXPECT_EQ(record.find("tokens")->integer, 64 * step);
    EXPECT_EQ(record.find("train/loss") != nullptr, step != 3);
    EXPECT_EQ(record.find("validation/held_out/perplexity") != nullptr, step % 3 == 0);
    EXPECT_EQ(record.find("train/tokens_per_second") != nullptr, step != 1 && step != 3);
    if (const json::Value* loss = record.find("train/loss")) {
      EXPECT_NEAR(record.find("train/perplexity")->real, std::exp(loss->real), 1e-6 * std::exp(loss->real));
      for (const char* name : {"train/balance_loss", "train/grad_norm", "train/learning_rate", "moe/load_max_over_mean",
                               "moe/dropped_fraction", "moe/expert_activation"}) {
        EXPECT_NE(record.find(name), nullptr) << name;
      }
    }
  }
  const std::vector<std::string> rows = lines_of(read_text(folder_ / "runs/tiny/perplexity.csv"));
  ASSERT_EQ(rows.size(), 1 + records.size());
  for (const std::string& row : rows) EXPECT_EQ(std::ranges::count(row, ','), 6) << row;
}

TEST_F(TrainCommand, EvaluatePrintsTheScoresOfTheLastValidation) {
  for (const char* precision : {"fp32", "bf16"}) {
    const Outcome trained =
        run(fmt::format("train tiny.json --threads 1 --overwrite --set train.precision={}", precision));
    ASSERT_EQ(trained.code, 0) << trained.err;
    const Outcome evaluated = run("evaluate runs/tiny --threads 1");
    ASSERT_EQ(evaluated.code, 0) << evaluated.err;
    EXPECT_EQ(score_lines(evaluated.out), score_lines(trained.out)) << precision;
  }
}

TEST_F(TrainCommand, ResolvedConfigRunsAgainToTheSameModel) {
  ASSERT_EQ(run("train tiny.json --threads 1").code, 0);
  ASSERT_EQ(run("train runs/tiny/config.json --threads 1 --output-dir again").code, 0);
  const SafetensorsFile first((folder_ / "runs/tiny" / kModel).string());
  const SafetensorsFile again((folder_ / "again/tiny" / kModel).string());
  EXPECT_EQ(first.names(), again.names());
  for (const std::string& name : first.names()) EXPECT_EQ(first.doubles(name), again.doubles(name)) << name;
}

TEST_F(TrainCommand, EarlierRunIsReplacedOnlyWhenAsked) {
  ASSERT_EQ(run("train tiny.json --threads 1").code, 0);
  const std::string model = read_text(folder_ / "runs/tiny" / kModel);
  for (const auto& [arguments, code] : {std::pair{"--set seed=2", 78}, {"--resume never", 73}}) {
    const Outcome refused = run(fmt::format("train tiny.json --threads 1 {}", arguments));
    EXPECT_EQ(refused.code, code);
    EXPECT_NE(refused.err.find("--overwrite"), std::string::npos);
  }
  EXPECT_EQ(read_text(folder_ / "runs/tiny" / kModel), model);
  EXPECT_EQ(run("train tiny.json --threads 1 --set seed=2 --overwrite").code, 0);
  EXPECT_NE(read_text(folder_ / "runs/tiny" / kModel), model);
}

TEST_F(TrainCommand, DenseModelHasNoRoutingMetrics) {
  ASSERT_EQ(run("train tiny.json --threads 1 --set model.moe.every_n_layers=0").code, 0);
  const std::string metrics = read_text(folder_ / "runs/tiny/metrics.jsonl");
  EXPECT_EQ(metrics.find("moe/"), std::string::npos);
  EXPECT_EQ(metrics.find("balance"), std::string::npos);
}

TEST_F(TrainCommand, FirstDifferentTensorOfTwoDumpsIsFound) {
  const std::string script = MHMOE_SOURCE_DIR "/scripts/compare_dumps.py";
  const auto compare = [&](const char* a, const char* b) {
    const std::string command =
        fmt::format("cd '{}' && python3 '{}' {} {} > compared.txt", folder_.string(), script, a, b);
    return WEXITSTATUS(std::system(command.c_str()));
  };
  ASSERT_EQ(run("train tiny.json --threads 1 --overwrite --dump a --dump-step 2").code, 0);
  ASSERT_EQ(run("train tiny.json --threads 1 --overwrite --dump b --dump-step 2").code, 0);
  ASSERT_EQ(run("train tiny.json --threads 1 --overwrite --dump c --dump-step 2 --set train.learning_rate.peak=0.02 "
                "--set train.learning_rate.warmup_steps=0")
                .code,
            0);
  EXPECT_EQ(compare("a", "b"), 0);
  EXPECT_EQ(compare("a", "c"), 1);
  const std::string found = read_text(folder_ / "compared.txt");
  EXPECT_NE(found.find("first difference: "), std::string::npos) << found;
  EXPECT_NE(found.find("elements differ"), std::string::npos) << found;

  std::vector<std::string> names;
  for (const json::Value& line : json_lines(folder_ / "a/step-2.jsonl")) {
    names.push_back(line.find("name")->text);
    EXPECT_EQ(line.find("nan")->integer, 0);
    EXPECT_LE(line.find("min")->real, line.find("mean")->real);
    EXPECT_LE(line.find("mean")->real, line.find("max")->real);
  }
  EXPECT_EQ(names, SafetensorsFile((folder_ / "a/step-2.safetensors").string()).names());
  for (const char* name : {"losses", "losses@1", "grad.embed.weight", "updated.layers.1.moe.router.weight"}) {
    EXPECT_NE(std::ranges::find(names, name), names.end()) << name;
  }
}

}  // namespace
}  // namespace mhmoe::cli
