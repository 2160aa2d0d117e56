#include <gtest/gtest.h>

#include "cli/commands.h"
#include "core/json.h"

namespace mhmoe::cli {
namespace {

// What the command prints to standard output.
std::string run(const std::vector<std::string>& arguments) {
  CLI::App app;
  add_plan_command(app);
  add_config_command(app);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // as CLI11 takes them
  testing::internal::CaptureStdout();
  try {
    app.parse(reversed);
  } catch (...) {
    testing::internal::GetCapturedStdout();
    throw;
  }
  return testing::internal::GetCapturedStdout();
}

ExitCode exit_code_of(const std::vector<std::string>& arguments) {
  try {
    run(arguments);
  } catch (const Error& error) {
    return error.code();
  } catch (const CLI::ParseError&) {  // main() turns it into this
    return ExitCode::kUsage;
  }
  return ExitCode::kOk;
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

const std::string kConfigs = MHMOE_SOURCE_DIR "/configs/";

TEST(Plan, ShowsParametersFlopsAndMemory) {
  const std::string text = run({"plan", kConfigs + "tiny/mhmoe_8.json"});
  for (const char* part : {"head and merge layers", "experts", "Training: ", "state, always held", "second moments",
                           "step, at its peak", "expert pre-activation"}) {
    EXPECT_TRUE(contains(text, part)) << part << " in\n" << text;
  }
}

TEST(Plan, MatchFindsPaper2sSizes) {
  const std::string base = kConfigs + "paper2/smoe_8.json";
  EXPECT_TRUE(contains(run({"plan", "--match", base, "--heads", "3", "--top-k", "3", "--ignore-small-terms"}),
                       "expert_hidden_size 512.00, experts 93.00 exactly"));
  EXPECT_TRUE(contains(run({"plan", "--match", base, "--heads", "2", "--top-k", "2", "--ignore-small-terms"}),
                       "expert_hidden_size 768.00, experts 41.33 exactly"));
  EXPECT_TRUE(contains(run({"plan", kConfigs + "paper2/mhmoe_h3.json", "--match", base}), "<- as configured"));
}

TEST(Plan, OverridesReachTheModel) {
  const std::string file = kConfigs + "tiny/dense.json";
  EXPECT_TRUE(contains(run({"plan", file, "--set", "model.layers=6", "--set", "name=six"}), "six: 6 layers"));
}

TEST(Plan, MistakesOfUseHaveTheirExitCodes) {
  EXPECT_EQ(exit_code_of({"plan"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", "--match", kConfigs + "tiny/smoe_8.json"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", "no_such_file.json"}), ExitCode::kMissingInput);
  EXPECT_EQ(exit_code_of({"plan", "--match", kConfigs + "tiny/smoe_8.json", "--heads", "5", "--top-k", "2"}),
            ExitCode::kConfig);
  EXPECT_EQ(exit_code_of({"plan", kConfigs + "tiny/dense.json", "--match", kConfigs + "tiny/smoe_8.json"}),
            ExitCode::kConfig);
  EXPECT_EQ(exit_code_of({"config"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"config", kConfigs + "tiny/dense.json", "--set", "train.stepz=3"}), ExitCode::kConfig);
}

TEST(Plan, OptionsThatWouldBeIgnoredAreRefused) {
  const std::string tiny = kConfigs + "tiny/mhmoe_8.json";
  const std::string base = kConfigs + "tiny/smoe_8.json";
  for (const std::vector<std::string>& option : std::vector<std::vector<std::string>>{{"--heads", "4"},
                                                                                      {"--top-k", "2"},
                                                                                      {"--experts", "8"},
                                                                                      {"--expert-hidden-size", "64"},
                                                                                      {"--ignore-small-terms"},
                                                                                      {"--match-what", "flops"}}) {
    std::vector<std::string> arguments{"plan", tiny};
    arguments.insert(arguments.end(), option.begin(), option.end());
    EXPECT_EQ(exit_code_of(arguments), ExitCode::kUsage) << option[0] << " without --match";
  }
  for (const char* size : {"--experts", "--expert-hidden-size"}) {
    EXPECT_EQ(exit_code_of({"plan", tiny, "--match", base, size, "64"}), ExitCode::kUsage) << size;
    EXPECT_EQ(exit_code_of({"plan", tiny, "--match", base, "--match-what", "parameters", size, "64"}), ExitCode::kOk);
  }
  EXPECT_EQ(exit_code_of({"plan", tiny, "--match", base, "--match-what", "flops", "--experts", "64"}), ExitCode::kOk);
  EXPECT_EQ(exit_code_of({"plan", tiny, "--match", base, "--match-what", "flops", "--expert-hidden-size", "64"}),
            ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", tiny, "--match", base, "--device", "cuda"}), ExitCode::kUsage);
}

TEST(Plan, ShowsAJobOfManyRanks) {
  const std::string config = kConfigs + "paper2/mhmoe_h3.json";
  const std::string text = run({"plan", config, "--ranks", "32", "--gpus-per-node", "8", "--gpu", "a100"});
  for (const char* part :
       {"On 32 ranks (4 nodes of 8), A100 SXM 80 GB in bf16", "no GPU was measured", "expert-parallel groups of 32",
        "masters, its shard", "transfer buffers", "capacity bounds the rows", "rows to experts",
        "gradients, reduce-scatter", "hierarchical", "<- chosen", "step, with overlap", "MFU"}) {
    EXPECT_TRUE(contains(text, part)) << part << " in\n" << text;
  }
  const std::string dropless = run({"plan", config, "--ranks", "32", "--set", "model.moe.capacity_factor=null"});
  EXPECT_TRUE(contains(dropless, "if one rank got all rows, more")) << dropless;
  const json::Value report = json::parse(run({"plan", config, "--ranks", "32", "--json"}), "plan", ExitCode::kBadData);
  EXPECT_EQ(json::member(report, "expert_parallel_size", json::Kind::kInteger).integer, 32);
  EXPECT_GT(json::member(report, "mfu", json::Kind::kReal).real, 0);
  EXPECT_FALSE(contains(run({"plan", kConfigs + "paper2/dense.json", "--ranks", "8"}), "expert-parallel"));
}

TEST(Plan, MistakesAboutRanksHaveTheirExitCodes) {
  const std::string config = kConfigs + "paper2/mhmoe_h3.json";
  EXPECT_EQ(exit_code_of({"plan", config, "--ranks", "64"}), ExitCode::kConfig) << "32 micro-batches";
  EXPECT_EQ(exit_code_of({"plan", config, "--ranks", "12"}), ExitCode::kUsage) << "a node and a half";
  EXPECT_EQ(exit_code_of({"plan", config, "--ranks", "0"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", config, "--ranks", "8", "--gpu", "h1000"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", config, "--json"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", config, "--gpu", "h100"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", config, "--gpus-per-node", "8"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", config, "--ranks", "8", "--device", "cpu"}), ExitCode::kUsage);
  EXPECT_EQ(exit_code_of({"plan", config, "--ranks", "8", "--match", kConfigs + "paper2/smoe_8.json"}),
            ExitCode::kUsage);
}

TEST(Config, PrintsTheResolvedConfigurationAndTheSchema) {
  EXPECT_TRUE(contains(run({"config", kConfigs + "tiny/mhmoe_8.json"}), "\"balance_loss_weight\": 0.01"));
  EXPECT_TRUE(contains(run({"config", "--schema"}), "model.moe.capacity_factor: a number above 0 and up to 64"));
}

}  // namespace
}  // namespace mhmoe::cli
