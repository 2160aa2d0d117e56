// Initial weights follow the released code: their distribution per parameter, and independence of everything but seed
// and name.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "nn/tiny_model.h"

namespace mhmoe::nn_test {
namespace {

struct Moments {
  double deviation, largest;
};

Moments moments(const std::vector<float>& values) {
  double square = 0, largest = 0;
  for (const double value : values) {
    square += value * value;
    largest = std::max(largest, std::abs(value));
  }
  return {std::sqrt(square / static_cast<double>(values.size())), largest};
}

// uniform(-bound, bound): deviation bound / sqrt(3), and never beyond the bound.
void expect_uniform(const std::vector<float>& values, double bound) {
  const Moments found = moments(values);
  const double tolerance = 5 / std::sqrt(static_cast<double>(values.size()));
  EXPECT_NEAR(found.deviation / (bound / std::sqrt(3.0)), 1, tolerance);
  EXPECT_LE(found.largest, bound * (1 + 1e-6));
}

nn::ModelConfig wide_config() {
  nn::ModelConfig config = tiny_config();
  config.hidden_size = 96;
  config.vocab_size = 200;
  config.ffn.bias = config.attention_bias = true;
  return config;
}

TEST(Initialization, FollowsTheReleasedCode) {
  const nn::ModelConfig config = wide_config();
  TinyModel model(config);
  const double d = 96, w = 48;
  EXPECT_NEAR(moments(model.get("embed.weight")).deviation * std::sqrt(d), 1, 0.03);
  expect_uniform(model.get("layers.0.attention.q.weight"), 1 / std::sqrt(d));
  expect_uniform(model.get("layers.0.ffn.down.weight"), 1 / std::sqrt(static_cast<double>(config.ffn.hidden_size)));
  expect_uniform(model.get("layers.0.ffn.down.bias"), 1 / std::sqrt(static_cast<double>(config.ffn.hidden_size)));
  expect_uniform(model.get("layers.1.moe.head.weight"), std::sqrt(6 / (2 * d)) / std::sqrt(2.0));
  expect_uniform(model.get("layers.1.moe.head.bias"), 1 / std::sqrt(d));
  expect_uniform(model.get("layers.1.moe.merge.weight"), std::sqrt(6 / (2 * d)));
  EXPECT_EQ(moments(model.get("layers.1.moe.merge.bias")).largest, 0);
  expect_uniform(model.get("layers.1.moe.router.weight"), 1 / std::sqrt(w));
  expect_uniform(model.get("layers.1.moe.experts.3.up.weight"), 1 / std::sqrt(w));
  expect_uniform(model.get("layers.1.moe.experts.3.down.weight"), 1 / std::sqrt(16.0));
  for (const float value : model.get("layers.1.ffn_norm.weight")) EXPECT_EQ(value, 1);
}

TEST(Initialization, DependsOnSeedAndNameAlone) {
  const nn::ModelConfig config = wide_config();
  TinyModel model(config), twin(config);
  nn::ModelConfig other = config;
  other.layers = 4;
  other.moe.experts = 7;
  TinyModel larger(other);
  for (const char* name : {"layers.0.attention.k.weight", "layers.1.moe.experts.4.gate.weight", "embed.weight"}) {
    EXPECT_TRUE(same_bytes(model.get(name), twin.get(name))) << name;
    EXPECT_TRUE(same_bytes(model.get(name), larger.get(name))) << name;
  }
  EXPECT_FALSE(
      same_bytes(model.get("layers.1.moe.experts.3.gate.weight"), model.get("layers.1.moe.experts.4.gate.weight")));
}

}  // namespace
}  // namespace mhmoe::nn_test
