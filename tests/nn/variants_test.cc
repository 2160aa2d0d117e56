// The program's model in fp32 on the CPU backend against the oracle in double, for every variant of the configuration.
#include <gtest/gtest.h>

#include <iostream>

#include "nn/judged_model.h"
#include "reference/step.h"

namespace mhmoe::nn_test {
namespace {

using reference::clear_parameters;
using reference::deviation_of;
using reference::expected_of;
using reference::kSinglePrecision;
using reference::uneven_batches;
using reference::Variant;

class Variants : public testing::TestWithParam<Variant> {};

TEST_P(Variants, FollowTheOracle) {
  const nn::ModelConfig& config = GetParam().config;
  const std::vector<Batch> batch = {reference::random_batch(config, 3, 5, GetParam().uncounted_targets, 5)};
  const Parameters<double> parameters = clear_parameters(config, batch);
  const auto worst =
      deviation_of(run_model(config, parameters, batch), expected_of(config, parameters, batch), kSinglePrecision);
  EXPECT_LE(worst.value, 1) << worst.text;
  std::cout << GetParam().name << ": worst " << worst.text << "\n";
}

TEST_P(Variants, FollowTheOracleInUnevenMicroBatchesWithRecomputation) {
  const nn::ModelConfig& config = GetParam().config;
  const std::vector<Batch> batches = uneven_batches(config);
  const Parameters<double> parameters = clear_parameters(config, batches);
  Outputs expected = expected_of(config, parameters, batches);
  Outputs found = run_model(config, parameters, batches, {.recompute_blocks = true, .logit_chunk_rows = 3});
  expected.erase("logits");
  found.erase("logits");  // only the last chunk is seen
  const auto worst = deviation_of(found, expected, kSinglePrecision);
  EXPECT_LE(worst.value, 1) << worst.text;
}

// bf16 keeps 8 bits and gradients are sums that cancel: up to 20 % of a small tensor is rounding. A wrong formula or a
// lost tensor in the bf16 path shows as a deviation of the size of the tensor itself.
TEST_P(Variants, FollowTheOracleRoughlyInBf16) {
  const nn::ModelConfig& config = GetParam().config;
  const std::vector<Batch> batch = {reference::random_batch(config, 1, 5, GetParam().uncounted_targets, 5)};
  const Parameters<double> parameters = clear_parameters(config, batch, 0.06);
  const auto worst =
      deviation_of(run_model(config, parameters, batch, {.compute = DType::kBF16}),
                   expected_of(config, parameters, batch), reference::Bounds{.absolute = 0.1, .own = 0.3});
  EXPECT_LE(worst.value, 1) << worst.text;
  std::cout << GetParam().name << ": worst " << worst.text << "\n";
}

INSTANTIATE_TEST_SUITE_P(All, Variants, testing::ValuesIn(reference::all_variants()),
                         [](const auto& info) { return info.param.name; });

// Rows meet only in attention, in expert queues of fixed capacity and in the balance loss: without the last two a step
// is the same however it is cut into micro-batches.
TEST(MicroBatches, OfUnevenCountsOfTargetsGiveTheGradientOfTheWhole) {
  nn::ModelConfig config = reference::small_moe(2, 2);
  config.moe.capacity_factor = std::nullopt;
  config.moe.balance_loss_weight = 0;
  const std::vector<Batch> parts = uneven_batches(config);
  Batch whole{.length = 4, .tokens = {}, .targets = {}};
  for (const Batch& part : parts) {
    whole.tokens.insert(whole.tokens.end(), part.tokens.begin(), part.tokens.end());
    whole.targets.insert(whole.targets.end(), part.targets.begin(), part.targets.end());
  }
  const Parameters<double> parameters = clear_parameters(config, parts);
  const auto gradients = [&](std::span<const Batch> batches) {
    Outputs outputs = run_model(config, parameters, batches);
    std::erase_if(outputs,
                  [](const auto& item) { return !item.first.starts_with("grad.") && item.first != "cross_entropy"; });
    return outputs;
  };
  const auto worst = deviation_of(gradients(parts), gradients(std::span(&whole, 1)), kSinglePrecision);
  EXPECT_LE(worst.value, 1) << worst.text;
}

}  // namespace
}  // namespace mhmoe::nn_test
