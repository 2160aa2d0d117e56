#include "train/flops.h"

namespace mhmoe::train {
namespace {

// A feed-forward on rows of `width`: 2 FLOPs a weight.
double feed_forward_flops(const nn::FeedForwardConfig& ffn, double width, double hidden) {
  const double matrices = ffn.activation == ops::Activation::kSwiglu ? 3 : 2;
  return 2 * matrices * width * hidden;
}

}  // namespace

double FlopsByPart::total() const {
  return attention_projections + attention + dense_ffn + head_and_merge + router + experts + shared_expert + lm_head;
}

FlopsByPart forward_flops_per_token(const nn::ModelConfig& config, int64_t sequence_length) {
  const auto width = static_cast<double>(config.hidden_size);
  const auto layers = static_cast<double>(config.layers);
  const nn::MoeConfig& moe = config.moe;
  double moe_layers = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) moe_layers += config.is_moe_layer(layer) ? 1 : 0;

  FlopsByPart flops;
  flops.attention_projections = layers * 4 * 2 * width * width;
  // The token at position t meets t + 1 keys, (T + 1) / 2 on average, once for scores and once for values.
  flops.attention = layers * 2 * 2 * width * static_cast<double>(sequence_length + 1) / 2;
  flops.dense_ffn =
      (layers - moe_layers) * feed_forward_flops(config.ffn, width, static_cast<double>(config.ffn.hidden_size));
  flops.lm_head = 2 * width * static_cast<double>(config.vocab_size);
  if (moe_layers == 0) return flops;

  const auto sub_tokens = static_cast<double>(moe.heads);
  const auto sub_width = static_cast<double>(config.sub_token_size());
  const int projections = (moe.has_head_layer() ? 1 : 0) + (moe.has_merge_layer() ? 1 : 0);
  flops.head_and_merge = moe_layers * projections * 2 * width * width;
  flops.router = moe_layers * sub_tokens * 2 * sub_width * static_cast<double>(moe.experts);
  flops.experts = moe_layers * sub_tokens * static_cast<double>(moe.top_k) *
                  feed_forward_flops(config.ffn, sub_width, static_cast<double>(moe.expert_hidden_size));
  flops.shared_expert =
      moe_layers * feed_forward_flops(config.ffn, width, static_cast<double>(moe.shared_expert_hidden_size));
  return flops;
}

double training_flops_per_token(const nn::ModelConfig& config, int64_t sequence_length) {
  return 3 * forward_flops_per_token(config, sequence_length).total();
}

}  // namespace mhmoe::train
