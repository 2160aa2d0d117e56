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
  EXPECT_GE(file_of.size(), 18u);
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

// All of it but the experts: what makes a comparison of curves fair.
std::string all_but_the_model(train::RunConfig run) {
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
    EXPECT_EQ(all_but_the_model(member), all_but_the_model(dense)) << member.name;
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

// Paper 2 gives every MoE model the FLOPs of the dense one, and about the SMoE's parameters.
TEST(Configurations, Paper2ModelsAreThePapers) {
  const nn::ModelConfig dense = shipped("paper2/dense").model, smoe = shipped("paper2/smoe_8").model;
  const LayerCost baseline = layer_cost(smoe, true);
  EXPECT_DOUBLE_EQ(layer_cost(dense, true).flops, baseline.flops);
  for (const char* name : {"paper2/fine_grained_16", "paper2/mhmoe_h2", "paper2/mhmoe_h3"}) {
    const MatchOptions leading{.ignore_small_terms = true, .experts = {}, .expert_hidden_size = {}};
    const Candidate own = own_candidate(shipped(name).model, baseline, leading);
    EXPECT_NEAR(own.flops_residual, 0, 1e-12) << name;
    EXPECT_LT(std::abs(own.parameters_residual), 0.032) << name;
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
