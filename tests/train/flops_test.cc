#include "train/flops.h"

#include <gtest/gtest.h>

#include "train/task.h"

namespace mhmoe::train {
namespace {

nn::ModelConfig paper2(int64_t experts, int64_t top_k, int64_t heads, int64_t expert_hidden) {
  nn::ModelConfig config;
  config.vocab_size = 1000;
  config.layers = 12;
  config.moe.every_n_layers = 2;
  config.moe.experts = experts;
  config.moe.top_k = top_k;
  config.moe.heads = heads;
  config.moe.expert_hidden_size = expert_hidden;
  return config;
}

// The four models of paper 2, table 1, have equal FLOPs in their MoE layers: 4.7186 M multiplications a token.
TEST(Flops, ModelsOfPaper2AreEqual) {
  for (const nn::ModelConfig& config :
       {paper2(8, 1, 1, 2048), paper2(16, 2, 1, 1024), paper2(40, 2, 2, 768), paper2(96, 3, 3, 512)}) {
    const FlopsByPart flops = forward_flops_per_token(config, 2048);
    EXPECT_DOUBLE_EQ(flops.experts + flops.head_and_merge, 6 * 2 * 4718592.0);
  }
}

// Every weight of a dense model is used once a token: two FLOPs each, besides attention's products of activations.
TEST(Flops, DenseModelTakesTwoAWeight) {
  nn::ModelConfig config;
  config.vocab_size = 100;
  config.layers = 3;
  config.hidden_size = 32;
  config.attention_heads = 4;
  config.ffn.hidden_size = 48;
  CausalLm model(config, false);
  int64_t matrix_elements = 0;
  for (const nn::Parameter& parameter : model.parameters().all()) {
    if (parameter.kind == nn::ParameterKind::kMatrix) matrix_elements += parameter.count();
  }
  const FlopsByPart flops = forward_flops_per_token(config, 16);
  EXPECT_DOUBLE_EQ(flops.total() - flops.attention, 2.0 * static_cast<double>(matrix_elements));
  EXPECT_DOUBLE_EQ(training_flops_per_token(config, 16), 3 * flops.total());
}

// Positions 0 .. T - 1 meet 1 .. T keys: two products of width d each.
TEST(Flops, AttentionIsCausal) {
  nn::ModelConfig config;
  config.layers = 1;
  config.hidden_size = 8;
  const int64_t length = 5;
  double expected = 0;
  for (int64_t position = 0; position < length; ++position) expected += 2 * 2.0 * 8 * static_cast<double>(position + 1);
  EXPECT_DOUBLE_EQ(forward_flops_per_token(config, length).attention * static_cast<double>(length), expected);
}

}  // namespace
}  // namespace mhmoe::train
