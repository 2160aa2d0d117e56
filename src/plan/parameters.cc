#include "plan/parameters.h"

#include <algorithm>

namespace mhmoe::plan {
namespace {

int64_t feed_forward(const nn::FeedForwardConfig& ffn, int64_t width, int64_t hidden) {
  const auto w = static_cast<double>(width), m = static_cast<double>(hidden);
  return static_cast<int64_t>(feed_forward_weights(ffn, w, m) + feed_forward_biases(ffn, w, m));
}

int64_t square_layer(int64_t width, bool bias) {
  return width * width + (bias ? width : 0);
}

ParametersByPart count(const nn::ModelConfig& config, int64_t experts_counted) {
  const int64_t d = config.hidden_size;
  const nn::MoeConfig& moe = config.moe;
  ParametersByPart out;
  out.embedding = config.vocab_size * d;
  out.lm_head = config.tie_embeddings ? 0 : config.vocab_size * d;
  out.norms = (2 * config.layers + 1) * d;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    out.attention += 4 * square_layer(d, config.attention_bias);
    if (!config.is_moe_layer(layer)) {
      out.dense_ffn += feed_forward(config.ffn, d, config.ffn.hidden_size);
      continue;
    }
    out.head_and_merge += (moe.has_head_layer() + moe.has_merge_layer()) * square_layer(d, moe.projection_bias);
    out.router += moe.experts * config.sub_token_size();
    out.experts += experts_counted * feed_forward(config.ffn, config.sub_token_size(), moe.expert_hidden_size);
    if (moe.shared_expert_hidden_size > 0) {
      out.shared_expert += feed_forward(config.ffn, d, moe.shared_expert_hidden_size);
    }
  }
  return out;
}

}  // namespace

double feed_forward_weights(const nn::FeedForwardConfig& ffn, double width, double hidden) {
  return (ffn.activation == ops::Activation::kSwiglu ? 3 : 2) * width * hidden;
}

double feed_forward_biases(const nn::FeedForwardConfig& ffn, double width, double hidden) {
  if (!ffn.bias) return 0;
  return (ffn.activation == ops::Activation::kSwiglu ? 2 : 1) * hidden + width;
}

ParametersByPart count_parameters(const nn::ModelConfig& config) {
  return count(config, config.moe.experts);
}

ParametersByPart count_active_parameters(const nn::ModelConfig& config) {
  return count(config, std::min(config.moe.experts, config.moe.heads * config.moe.top_k));
}

}  // namespace mhmoe::plan
