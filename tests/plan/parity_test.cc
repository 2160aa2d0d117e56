#include "plan/parity.h"

#include <gtest/gtest.h>

#include <cmath>

#include "plan/parameters.h"
#include "train/flops.h"

namespace mhmoe::plan {
namespace {

using nn::ModelConfig;

// Paper 2's SMoE: 8 SwiGLU experts of 2048 on width 768, top-1.
ModelConfig paper2() {
  ModelConfig config;
  config.moe.every_n_layers = 2;
  config.moe.experts = 8;
  config.moe.expert_hidden_size = 2048;
  return config;
}

// The worked example of both papers: two matrices, expert width four times the model's.
ModelConfig two_matrices(int64_t experts) {
  ModelConfig config;
  config.ffn = {.activation = ops::Activation::kRelu, .hidden_size = 3072};
  config.moe.every_n_layers = 2;
  config.moe.experts = experts;
  config.moe.expert_hidden_size = 3072;
  return config;
}

Match solve(const ModelConfig& baseline, int64_t heads, int64_t top_k, const MatchOptions& options) {
  return match(baseline, with_heads(baseline, heads, top_k), options);
}

const MatchOptions kLeadingTerms{
    .what = MatchWhat::kBoth, .ignore_small_terms = true, .experts = {}, .expert_hidden_size = {}};

TEST(Parity, ReproducesPaper2sSwigluSizes) {
  const Match two = solve(paper2(), 2, 2, kLeadingTerms);
  EXPECT_NEAR(two.exact.hidden_size, 768, 1e-6);
  EXPECT_NEAR(two.exact.experts, 41.0 + 1.0 / 3, 1e-6);
  const Match three = solve(paper2(), 3, 3, kLeadingTerms);
  EXPECT_NEAR(three.exact.hidden_size, 512, 1e-6);
  EXPECT_NEAR(three.exact.experts, 93, 1e-6);
  const Match fine_grained = solve(paper2(), 1, 2, kLeadingTerms);
  EXPECT_NEAR(fine_grained.exact.hidden_size, 1024, 1e-6);
  EXPECT_NEAR(fine_grained.exact.experts, 16, 1e-6);
}

// The sizes the paper trained: FLOPs equal, layer parameters 0.969 and 1.031 of the baseline's 37.75 M.
TEST(Parity, KnowsHowFarPaper2sOwnSizesAre) {
  ModelConfig two = with_heads(paper2(), 2, 2);
  two.moe.experts = 40;
  two.moe.expert_hidden_size = 768;
  const LayerCost baseline = layer_cost(paper2(), true);
  EXPECT_NEAR(baseline.parameters, 37.75e6, 5e3);
  EXPECT_NEAR(baseline.flops, 2 * 4.7186e6, 1e3);
  EXPECT_NEAR(own_candidate(two, baseline, kLeadingTerms).parameters_residual, 0.969 - 1, 5e-4);
  EXPECT_NEAR(own_candidate(two, baseline, kLeadingTerms).flops_residual, 0, 1e-12);
  ModelConfig three = with_heads(paper2(), 3, 3);
  three.moe.experts = 96;
  three.moe.expert_hidden_size = 512;
  EXPECT_NEAR(own_candidate(three, baseline, kLeadingTerms).parameters_residual, 1.031 - 1, 5e-4);
  EXPECT_NEAR(own_candidate(three, baseline, kLeadingTerms).flops_residual, 0, 1e-12);
}

// d_moe = 4d, k = 1: h = 3 gives width 3d and 4E - 1 experts; h = 2 with top-2 gives 1.5 d.
TEST(Parity, ReproducesPaper2sTwoMatrixExample) {
  for (const int64_t experts : {4, 8, 32}) {
    const Match three = solve(two_matrices(experts), 3, 1, kLeadingTerms);
    EXPECT_NEAR(three.exact.hidden_size, 3 * 768, 1e-6);
    EXPECT_NEAR(three.exact.experts, 4.0 * static_cast<double>(experts) - 1, 1e-6);
  }
  EXPECT_NEAR(solve(two_matrices(8), 2, 2, kLeadingTerms).exact.hidden_size, 1.5 * 768, 1e-6);
}

// Paper 1: as many experts, equal parameters, width 4 beta h d: beta = 1 - 1 / 4N.
TEST(Parity, ReproducesPaper1sBeta) {
  for (const int64_t experts : {8, 16, 32, 256}) {
    MatchOptions options = kLeadingTerms;
    options.what = MatchWhat::kParameters;
    const double width = solve(two_matrices(experts), 4, 1, options).exact.hidden_size;
    EXPECT_NEAR(width / (4 * 4 * 768), 1 - 1 / (4.0 * static_cast<double>(experts)), 1e-9) << experts;
  }
}

// Papers 1 and 2, one layer with two matrices, leading terms, additions counted: a sparse MoE with k = 1 and width 4d
// costs 16 d^2 a token; paper 1's MH-MoE (h = 4, k = 1, width 4 beta h d = 15.75 d with beta = 63/64) 67 d^2, of which
// the head and merge layers have 4.
TEST(Parity, Paper1sLayerCosts67WhereSparseMoeCosts16) {
  constexpr double kWidth2 = 768.0 * 768.0;
  const ModelConfig sparse = two_matrices(32);
  ModelConfig multi_head = with_heads(sparse, 4, 1);
  multi_head.moe.expert_hidden_size = 12096;
  EXPECT_EQ(12096, 4 * 4 * 768 * 63 / 64);
  const auto per_layer = [](double model_flops) { return model_flops / 6; };
  const train::FlopsByPart small = train::forward_flops_per_token(sparse, 2048);
  const train::FlopsByPart large = train::forward_flops_per_token(multi_head, 2048);
  EXPECT_DOUBLE_EQ(per_layer(small.experts + small.head_and_merge), 16 * kWidth2);
  EXPECT_DOUBLE_EQ(per_layer(large.experts + large.head_and_merge), 67 * kWidth2);
  EXPECT_DOUBLE_EQ(per_layer(large.head_and_merge), 4 * kWidth2);
  EXPECT_DOUBLE_EQ(layer_cost(sparse, true).flops, 16 * kWidth2);
  EXPECT_DOUBLE_EQ(layer_cost(multi_head, true).flops, 67 * kWidth2);
}

TEST(Parity, ExactSolutionSolvesTheEquationsWithEverythingCounted) {
  for (const bool small_terms_ignored : {false, true}) {
    for (const bool bias : {false, true}) {
      for (const auto activation : {ops::Activation::kSwiglu, ops::Activation::kGelu}) {
        ModelConfig baseline = paper2();
        baseline.ffn.bias = bias;
        baseline.ffn.activation = activation;
        baseline.moe.shared_expert_hidden_size = 2048;
        for (const auto what : {MatchWhat::kParameters, MatchWhat::kFlops, MatchWhat::kBoth}) {
          const MatchOptions options{
              .what = what, .ignore_small_terms = small_terms_ignored, .experts = {}, .expert_hidden_size = {}};
          const ModelConfig shape = with_heads(baseline, 4, 2);
          const Match found = match(baseline, shape, options);
          const LayerCost cost = moe_layer_cost(shape, found.exact, small_terms_ignored);
          const double parameters = cost.parameters / found.baseline.parameters;
          const double flops = cost.flops / found.baseline.flops;
          EXPECT_NEAR(what == MatchWhat::kFlops ? 1 : parameters, 1, 1e-12);
          EXPECT_NEAR(what == MatchWhat::kParameters ? 1 : flops, 1, 1e-12);
        }
      }
    }
  }
}

// Layer costs agree with the whole model's accounts, which are tested against the model itself.
TEST(Parity, LayerCostIsWhatTheModelsAccountsSay) {
  ModelConfig config = with_heads(paper2(), 3, 3);
  config.vocab_size = 1000;
  config.ffn.bias = true;
  config.moe.experts = 95;
  config.moe.expert_hidden_size = 504;
  config.moe.shared_expert_hidden_size = 64;
  const LayerCost cost = layer_cost(config, false);
  const ParametersByPart counted = count_parameters(config);
  const train::FlopsByPart flops = train::forward_flops_per_token(config, 2048);
  EXPECT_DOUBLE_EQ(6 * cost.parameters, static_cast<double>(counted.head_and_merge + counted.router + counted.experts +
                                                            counted.shared_expert));
  EXPECT_DOUBLE_EQ(6 * cost.flops, flops.head_and_merge + flops.router + flops.experts + flops.shared_expert);
  config.moe.every_n_layers = 0;
  EXPECT_DOUBLE_EQ(12 * layer_cost(config, false).parameters, static_cast<double>(count_parameters(config).dense_ffn));
  EXPECT_DOUBLE_EQ(12 * layer_cost(config, false).flops, train::forward_flops_per_token(config, 2048).dense_ffn);
}

TEST(Parity, CandidatesCanBeBuiltAndTheBestComesFirst) {
  const ModelConfig shape = with_heads(paper2(), 3, 3);
  const Match found = match(paper2(), shape, {});
  ASSERT_FALSE(found.candidates.empty());
  double last = 0;
  for (const Candidate& candidate : found.candidates) {
    EXPECT_EQ(candidate.expert_hidden_size % 8, 0);
    EXPECT_GE(candidate.experts, shape.moe.top_k);
    const double worst = std::max(std::abs(candidate.parameters_residual), std::abs(candidate.flops_residual));
    EXPECT_GE(worst, last);
    last = worst;
    ModelConfig built = shape;
    built.moe.experts = candidate.experts;
    built.moe.expert_hidden_size = candidate.expert_hidden_size;
    EXPECT_NEAR(layer_cost(built, false).parameters / found.baseline.parameters - 1, candidate.parameters_residual,
                1e-12);
  }
  const Candidate& best = found.candidates.front();
  EXPECT_LT(std::abs(best.parameters_residual), 0.01);
  EXPECT_LT(std::abs(best.flops_residual), 0.01);
}

TEST(Parity, HeldFixedSizesAreHeld) {
  MatchOptions options;
  options.what = MatchWhat::kParameters;
  options.expert_hidden_size = 512;
  const Match found = solve(paper2(), 3, 3, options);
  for (const Candidate& candidate : found.candidates) EXPECT_EQ(candidate.expert_hidden_size, 512);
  options = {};
  options.what = MatchWhat::kFlops;
  options.experts = 64;
  EXPECT_EQ(solve(paper2(), 3, 3, options).exact.experts, 64);
}

// Head and merge layers of width 768 alone cost more than experts of 256.
TEST(Parity, SaysWhenNothingFits) {
  ModelConfig baseline = paper2();
  baseline.moe.expert_hidden_size = 256;
  try {
    solve(baseline, 2, 2, {});
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kConfig);
    EXPECT_NE(std::string(error.what()).find("head and merge"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace mhmoe::plan
