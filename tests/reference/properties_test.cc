// What the oracle must satisfy whatever its code says.
#include <gtest/gtest.h>

#include "reference/variants.h"

namespace mhmoe::reference {
namespace {

double largest_difference(const Matrix<double>& a, const Matrix<double>& b) {
  EXPECT_EQ(a.values.size(), b.values.size());
  double result = 0;
  for (size_t i = 0; i < a.values.size(); ++i) result = std::max(result, std::abs(a.values[i] - b.values[i]));
  return result;
}

// Copies `layers.0.ffn.*` of a dense model into every expert of an MoE model of the same width.
Parameters<double> with_equal_experts(const nn::ModelConfig& moe, const Parameters<double>& dense) {
  Parameters<double> parameters = random_parameters(parameter_shapes(moe), 3);
  for (auto& [name, matrix] : parameters) {
    const size_t expert = name.find("moe.experts.");
    const std::string source = expert == name.npos ? name : "layers.0.ffn" + name.substr(name.find('.', expert + 12));
    if (dense.contains(source)) matrix = dense.at(source);
  }
  return parameters;
}

TEST(Oracle, EqualExpertsAreADenseFeedForward) {
  const nn::ModelConfig dense = small_config();
  nn::ModelConfig moe = small_moe(1, 2);
  moe.moe.expert_hidden_size = dense.ffn.hidden_size;
  moe.moe.router.normalize_top_k = true;
  moe.moe.capacity_factor = std::nullopt;
  const Batch batch = random_batch(dense, 2, 4, false, 1);
  const Parameters<double> parameters = random_parameters(parameter_shapes(dense), 2);
  const Matrix<double> expected = forward(dense, parameters, batch).logits;
  EXPECT_LE(largest_difference(forward(moe, with_equal_experts(moe, parameters), batch).logits, expected), 1e-12);
  moe.moe.experts = moe.moe.top_k = 1;
  moe.moe.router.normalize_top_k = false;
  EXPECT_LE(largest_difference(forward(moe, with_equal_experts(moe, parameters), batch).logits, expected), 1e-12);
}

// Changes the last token of the only sequence and tells by how much the logits of all others move.
double influence_of_last_token(const nn::ModelConfig& config) {
  double influence = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const Parameters<double> parameters = random_parameters(parameter_shapes(config), seed);
    Batch batch = random_batch(config, 1, 9, false, seed);
    Matrix<double> before = forward(config, parameters, batch).logits;
    batch.tokens.back() = (batch.tokens.back() + 1) % config.vocab_size;
    Matrix<double> after = forward(config, parameters, batch).logits;
    for (Matrix<double>* logits : {&before, &after}) {
      logits->values.resize(static_cast<size_t>((logits->rows - 1) * logits->cols));
    }
    influence = std::max(influence, largest_difference(before, after));
  }
  return influence;
}

TEST(Oracle, DroplessAndDenseAreCausalAndFixedCapacityWithTwoChoicesIsNot) {
  nn::ModelConfig moe = small_moe(2, 2);
  EXPECT_EQ(influence_of_last_token(small_config()), 0);
  EXPECT_GT(influence_of_last_token(moe), 1e-3);
  moe.moe.capacity_factor = std::nullopt;
  EXPECT_EQ(influence_of_last_token(moe), 0);
}

TEST(Oracle, UniformLogitsCostLogVocabulary) {
  const nn::ModelConfig config = small_config();
  Parameters<double> parameters = random_parameters(parameter_shapes(config), 4);
  for (double& value : parameters.at("final_norm.weight").values) value = 0;
  const Batch batch = random_batch(config, 2, 4, true, 1);
  EXPECT_NEAR(forward(config, parameters, batch).loss, std::log(11.0), 1e-14);
}

TEST(Oracle, SlotsFillByChoiceThenByRowAndEvenRoutingHasBalanceLossOne) {
  nn::MoeConfig moe = small_moe(1, 2).moe;
  moe.experts = 2;
  Matrix<double> p(3, 2);
  p.values = {0.9, 0.1, 0.8, 0.2, 0.3, 0.7};
  const Routing routing = choose(p, moe);
  EXPECT_EQ(routing.capacity, 4);
  EXPECT_EQ(routing.expert_index, (std::vector<int64_t>{0, 1, 0, 1, 1, 0}));
  EXPECT_EQ(routing.slot, (std::vector<int64_t>{0, 1, 1, 2, 0, 2}));

  RouterSaved<double> saved;
  Matrix<double> x(2, 2);
  x.values = {1, 0, 0, 1};
  Parameters<double> parameters;
  parameters["router.weight"] = x;
  for (const ops::BalanceCounts counts : {ops::BalanceCounts::kFirstChoice, ops::BalanceCounts::kAllChoices}) {
    moe.balance_loss_counts = counts;
    route(saved, parameters, "router", moe, x, nullptr);
    EXPECT_NEAR(saved.balance_loss, 1, 1e-15);
  }
}

TEST(Oracle, FloatFollowsDouble) {
  for (const Variant& variant : all_variants()) {
    const Parameters<double> parameters = random_parameters(parameter_shapes(variant.config), 17);
    const Batch batch = random_batch(variant.config, 2, 3, variant.uncounted_targets, 5);
    const Forward<double> run = forward(variant.config, parameters, batch);
    const std::vector<Routing> routing = run.routing();
    const Forward<float> single = forward(variant.config, convert<float>(parameters), batch, {}, &routing);
    EXPECT_NEAR(single.loss, run.loss, 1e-5 * std::abs(run.loss)) << variant.name;
  }
}

}  // namespace
}  // namespace mhmoe::reference
