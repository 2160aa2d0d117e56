// The configurations that are shipped.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <sstream>

#include "plan/parameters.h"
#include "plan/parity.h"
#include "train/config.h"
#include "train/flops.h"
#include "train/suite.h"

namespace mhmoe::plan {
namespace {

train::RunConfig shipped(const std::string& name) {
  return train::load_config(fmt::format("{}/configs/{}.json", MHMOE_SOURCE_DIR, name));
}

TEST(Configurations, AllLoadAndHaveNamesOfTheirOwn) {
  std::map<std::string, std::string> file_of;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(MHMOE_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".json" || entry.path().filename() == "suite.json") continue;
    const std::string name = train::load_config(entry.path().string()).name;
    EXPECT_TRUE(file_of.emplace(name, entry.path().string()).second) << name << " also in " << file_of[name];
  }
  EXPECT_GE(file_of.size(), 30u);
}

TEST(Configurations, ReadmeListsEachWithItsFolder) {
  std::ifstream file(MHMOE_SOURCE_DIR "/configs/README.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(MHMOE_SOURCE_DIR "/configs")) {
    const std::string name = entry.path().filename().string();
    if (entry.path().extension() != ".json" || name == "suite.json" || name == "base.json") continue;
    const auto folder = std::filesystem::relative(entry.path().parent_path(), MHMOE_SOURCE_DIR "/configs");
    const size_t begin = text.find(fmt::format("**{}/**", folder.string()));
    ASSERT_NE(begin, std::string::npos) << folder;
    const std::string section = text.substr(begin, text.find("| **", begin + 1) - begin);
    EXPECT_NE(section.find(fmt::format("`{}`", name)), std::string::npos) << entry.path();
  }
}

// The quickstart compares models of equal size and cost, over equal numbers of tokens.
TEST(Configurations, QuickstartModelsAreEqualInParametersAndFlops) {
  const train::RunConfig dense = shipped("tiny/dense"), smoe = shipped("tiny/smoe_8"), mhmoe = shipped("tiny/mhmoe_8");
  const Candidate own = own_candidate(mhmoe.model, layer_cost(smoe.model, false), {});
  EXPECT_LT(std::abs(own.parameters_residual), 0.01);
  EXPECT_LT(std::abs(own.flops_residual), 0.01);
  EXPECT_NEAR(layer_cost(smoe.model, false).flops / layer_cost(dense.model, false).flops, 1, 0.01);
  for (const train::RunConfig* run : {&dense, &smoe, &mhmoe}) {
    EXPECT_EQ(run->train.steps, dense.train.steps);
    EXPECT_EQ(run->train.batch_tokens, dense.train.batch_tokens);
    EXPECT_EQ(run->train.precision, train::Precision::kFp32) << "pinned, so that curves agree from machine to machine";
  }
}

const MatchOptions kLeadingTerms{
    .what = MatchWhat::kBoth, .ignore_small_terms = true, .experts = {}, .expert_hidden_size = {}};

// What a fair comparison holds equal.
std::string all_but_the_experts(train::RunConfig run) {
  run.name.clear();
  run.model.moe = {};
  return train::resolved_config(run);
}

// The pocket suite compares seven models of equal cost; the MoE ones of a number of experts have equal sizes too.
TEST(Configurations, PocketSuiteIsAFairComparison) {
  const train::Suite suite = train::load_suite(MHMOE_SOURCE_DIR "/configs/pocket/english/suite.json");
  const std::vector<train::RunConfig> members = train::load_members(suite, {});
  ASSERT_EQ(members.size(), 7u);
  const train::RunConfig& dense = members[0];
  EXPECT_EQ(dense.model.moe.every_n_layers, 0);
  EXPECT_EQ(dense.train.precision, train::Precision::kFp32) << "pinned, so that curves agree from machine to machine";
  const double cost = train::training_flops_per_token(dense.model, dense.data.sequence_length);
  for (const train::RunConfig& member : members) {
    EXPECT_NEAR(train::training_flops_per_token(member.model, member.data.sequence_length) / cost, 1, 0.006)
        << member.name;
  }
  for (const char* experts : {"8", "32"}) {
    const train::RunConfig smoe = shipped(fmt::format("pocket/english/smoe_{}", experts));
    train::RunConfig mhmoe = shipped(fmt::format("pocket/english/mhmoe_{}", experts));
    const train::RunConfig raw = shipped(fmt::format("pocket/english/mhmoe_{}_raw", experts));
    const Candidate own = own_candidate(mhmoe.model, layer_cost(smoe.model, false), {});
    EXPECT_LT(std::abs(own.parameters_residual), 0.01) << experts;
    EXPECT_LT(std::abs(own.flops_residual), 0.01) << experts;
    EXPECT_EQ(std::to_string(smoe.model.moe.experts), experts);
    EXPECT_FALSE(smoe.model.moe.capacity_factor.has_value() || mhmoe.model.moe.capacity_factor.has_value());
    EXPECT_FALSE(smoe.model.moe.router.normalize_top_k) << "over one expert it would always be 1";
    EXPECT_TRUE(mhmoe.model.moe.router.normalize_top_k);
    mhmoe.model.moe.router.normalize_top_k = false;
    mhmoe.name = raw.name;
    EXPECT_EQ(train::resolved_config(mhmoe), train::resolved_config(raw)) << "raw differs in its gates alone";
  }
}

// Table 11 of paper 1, in millions, as printed; routers, X-MoE's there and linear here, are left out. X-MoE's experts
// of the table are larger than two matrices and their biases by 0.14 %, which shows at 32.
TEST(Configurations, Paper1ModelsHaveTable11sParameters) {
  const auto millions = [](int64_t count) { return static_cast<double>(count) / 1e6; };
  EXPECT_NEAR(millions(count_parameters(shipped("paper1/english/dense").model).total()), 162, 0.5);
  struct Row {
    const char* name;
    double non_expert, experts, sum, tolerance;
  };
  for (const Row& row : {Row{"smoe_8", 134, 227, 361, 0}, Row{"smoe_32", 134, 908, 1042, 0.0015 * 908},
                         Row{"mhmoe_8", 141, 213, 354, 0}, Row{"mhmoe_32", 141, 898, 1039, 0}}) {
    const ParametersByPart counted = count_parameters(shipped(fmt::format("paper1/english/{}", row.name)).model);
    EXPECT_NEAR(millions(counted.non_expert() - counted.router), row.non_expert, 0.5) << row.name;
    EXPECT_NEAR(millions(counted.experts), row.experts, 0.5 + row.tolerance) << row.name;
    EXPECT_NEAR(millions(counted.total() - counted.router), row.sum, 1 + row.tolerance) << row.name;
  }
}

// Paper 1's rule is parameters: MH-MoE has no more than X-MoE. Its layers cost 2 + k * inner / d against k * 4 * 2
// products of width d by d.
TEST(Configurations, Paper1ModelsAreEqualInParametersAndNotInFlops) {
  for (const auto& [experts, inner] : std::map<const char*, double>{{"8", 11520}, {"32", 12144}}) {
    const nn::ModelConfig smoe = shipped(fmt::format("paper1/english/smoe_{}", experts)).model;
    const nn::ModelConfig mhmoe = shipped(fmt::format("paper1/english/mhmoe_{}", experts)).model;
    const Candidate own = own_candidate(mhmoe, layer_cost(smoe, true), kLeadingTerms);
    EXPECT_GT(own.parameters_residual, -0.035) << experts;
    EXPECT_LE(count_parameters(mhmoe).total(), count_parameters(smoe).total()) << experts;
    EXPECT_NEAR(own.flops_residual + 1, (2 + 2 * 2 * inner / 768) / (2 * 2 * 4), 1e-9) << experts;
  }
}

// Paper 2 gives every MoE model the FLOPs of the dense one, and about the SMoE's parameters.
TEST(Configurations, Paper2ModelsAreThePapers) {
  const nn::ModelConfig dense = shipped("paper2/dense").model, smoe = shipped("paper2/smoe_8").model;
  const LayerCost baseline = layer_cost(smoe, true);
  EXPECT_DOUBLE_EQ(layer_cost(dense, true).flops, baseline.flops);
  const std::map<const char*, double> residuals = {
      {"paper2/fine_grained_16", 0}, {"paper2/mhmoe_h2", 0.969 - 1}, {"paper2/mhmoe_h3", 1.031 - 1}};
  for (const auto& [name, residual] : residuals) {
    const Candidate own = own_candidate(shipped(name).model, baseline, kLeadingTerms);
    EXPECT_NEAR(own.flops_residual, 0, 1e-12) << name;
    EXPECT_NEAR(own.parameters_residual, residual, 5e-4) << name;
  }
}

// Sums over 12 layers of 768.
TEST(Configurations, BenchModelsAreAsTheArithmeticSays) {
  constexpr int64_t kAttention = 4 * 768 * 768, kNorms = 2 * 768, kFfn = 3 * 768 * 2048, kTable = 32000 * 768;
  constexpr int64_t kDense = kTable + 12 * (kAttention + kFfn + kNorms) + 768;
  constexpr int64_t kProjections = 2 * (768 * 768 + 768);
  const auto parameters = [](const char* name) { return count_parameters(shipped(name).model).total(); };
  EXPECT_EQ(parameters("bench/dense"), kDense);
  EXPECT_EQ(parameters("bench/smoe_8"), kDense + 6 * (7 * kFfn + 8 * 768));
  EXPECT_EQ(parameters("bench/mhmoe_h2"), kDense + 6 * (kProjections + 40 * (3 * 384 * 768 + 384) - kFfn));
  EXPECT_EQ(parameters("bench/mhmoe_h3"), kDense + 6 * (kProjections + 96 * (3 * 256 * 512 + 256) - kFfn));
  EXPECT_EQ(parameters("bench/gpt2_124m"), 50257 * 768 + 12 * (kAttention + 2 * 768 * 3072 + kNorms) + 768);

  const auto flops = [](const char* name) {
    const train::RunConfig run = shipped(name);
    EXPECT_EQ(run.train.batch_tokens, 4096) << name;
    EXPECT_EQ(run.train.micro_batch_sequences * run.data.sequence_length, 1024) << name;
    EXPECT_FALSE(run.model.moe_layers() > 0 && run.model.moe.capacity_factor) << name;
    return train::training_flops_per_token(run.model, run.data.sequence_length);
  };
  const auto meetings = [](int64_t length) { return 12 * 2 * 768 * (length + 1) / 2; };
  const auto dense = static_cast<double>(6 * (kTable + 12 * (kAttention + kFfn) + meetings(256)));
  EXPECT_DOUBLE_EQ(flops("bench/dense"), dense);
  EXPECT_DOUBLE_EQ(flops("bench/smoe_8"), dense + 6 * 6 * 8 * 768);
  EXPECT_DOUBLE_EQ(flops("bench/mhmoe_h2"), dense + 6 * 6 * 2 * 40 * 384);
  EXPECT_DOUBLE_EQ(flops("bench/mhmoe_h3"), dense + 6 * 6 * 3 * 96 * 256);
  EXPECT_DOUBLE_EQ(flops("bench/gpt2_124m"), 6 * (50257 * 768 + 12 * (kAttention + 2 * 768 * 3072) + meetings(1024)));
}

TEST(Configurations, SmallBenchModelsCostTheSame) {
  const train::RunConfig dense = shipped("bench/small_dense"), mhmoe = shipped("bench/small_mhmoe");
  EXPECT_EQ(count_parameters(dense.model).total(), 8192 * 256 + 6 * (4 * 256 * 256 + 3 * 256 * 688 + 2 * 256) + 256);
  EXPECT_EQ(dense.model.moe_layers(), 0);
  EXPECT_EQ(mhmoe.model.moe_layers(), 3);
  EXPECT_NEAR(train::training_flops_per_token(mhmoe.model, 256) / train::training_flops_per_token(dense.model, 256), 1,
              0.01);
}

// A shared expert of the dense size is all that Table 2 of paper 2 adds.
TEST(Configurations, Paper2SharedExpertsAreAddedToTheSameModels) {
  for (const char* name : {"smoe_8", "fine_grained_16", "mhmoe_h2", "mhmoe_h3"}) {
    train::RunConfig plain = shipped(fmt::format("paper2/{}", name));
    const train::RunConfig shared = shipped(fmt::format("paper2/{}_shared", name));
    EXPECT_EQ(count_parameters(shared.model).shared_expert, 6 * 3 * 768 * 2048) << name;
    plain.model.moe.shared_expert_hidden_size = plain.model.ffn.hidden_size;
    plain.name = shared.name;
    EXPECT_EQ(train::resolved_config(plain), train::resolved_config(shared)) << name;
  }
}

// A comparison is of models alone, and of every configuration of its folder.
TEST(Configurations, SuitesCompareModelsAlone) {
  for (const char* folder : {"tiny", "paper1/english", "paper2", "pocket/english"}) {
    const std::string path = fmt::format("{}/configs/{}", MHMOE_SOURCE_DIR, folder);
    const train::Suite suite = train::load_suite(path + "/suite.json");
    const std::vector<train::RunConfig> members = train::load_members(suite, {});
    for (const train::RunConfig& member : members) {
      EXPECT_EQ(all_but_the_experts(member), all_but_the_experts(members[0])) << member.name;
    }
    const auto files = std::distance(std::filesystem::directory_iterator(path), {});
    EXPECT_EQ(static_cast<size_t>(files), members.size() + 2) << folder << ": members, base.json and suite.json";
  }
}

// CONTRIBUTING.md tells how to shrink an experiment: "`--set A --set B` shrinks".
TEST(Configurations, AdviceToShrinkThemWorks) {
  std::ifstream file(MHMOE_SOURCE_DIR "/CONTRIBUTING.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const size_t end = text.find("` shrinks");
  ASSERT_NE(end, std::string::npos);
  std::istringstream words(text.substr(text.rfind('`', end - 1) + 1, end - text.rfind('`', end - 1) - 1));
  std::vector<std::string> overrides;
  for (std::string flag, value; words >> flag >> value;) {
    EXPECT_EQ(flag, "--set");
    overrides.push_back(value);
  }
  EXPECT_GE(overrides.size(), 2u);
  for (const char* name :
       {"tiny/dense", "tiny/smoe_8", "tiny/mhmoe_8", "paper2/mhmoe_h3", "pocket/english/mhmoe_32_raw"}) {
    EXPECT_NO_THROW(train::load_config(fmt::format("{}/configs/{}.json", MHMOE_SOURCE_DIR, name), overrides)) << name;
  }
}

}  // namespace
}  // namespace mhmoe::plan
