// What a model is: plain data with defaults. Read from JSON by train/config; checked by validate().
#pragma once

#include <cstdint>
#include <optional>

#include "ops/activation.h"
#include "ops/router.h"

namespace mhmoe::nn {

struct FeedForwardConfig {
  ops::Activation activation = ops::Activation::kSwiglu;
  int64_t hidden_size = 2048;
  bool bias = false;  // of every feed-forward: dense, expert and shared
};

struct RouterConfig {
  bool normalize_top_k = false;  // gate weights divided by the sum over the k chosen
};

enum class MoeResidual : uint8_t {
  kOuter,  // x + moe(norm(x)): paper 2 and the released code
  kInner,  // additionally each sub-token is added to its experts' sum before the merge: paper 1, equation 6
};

struct MoeConfig {
  int64_t every_n_layers = 0;  // block i (from 0) is MoE if (i + 1) % every_n_layers == 0; 0: no MoE, a dense model
  int64_t experts = 8;
  int64_t top_k = 1;
  int64_t heads = 1;
  int64_t expert_hidden_size = 2048;
  std::optional<bool> head_layer;   // default: heads > 1
  std::optional<bool> merge_layer;  // default: heads > 1
  bool projection_bias = true;      // of the head and merge layers
  MoeResidual residual = MoeResidual::kOuter;
  RouterConfig router;
  std::optional<double> capacity_factor = 1.0;  // absent: dropless
  double balance_loss_weight = 0.01;
  ops::BalanceCounts balance_loss_counts = ops::BalanceCounts::kFirstChoice;
  int64_t shared_expert_hidden_size = 0;  // 0: none

  // Not of the model, but of this process: the routed experts that it holds. 0: all.
  int64_t local_experts_begin = 0, local_experts = 0;

  bool has_head_layer() const { return head_layer.value_or(heads > 1); }
  bool has_merge_layer() const { return merge_layer.value_or(heads > 1); }
};

struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t layers = 12;
  int64_t hidden_size = 768;
  int64_t attention_heads = 12;
  bool attention_bias = false;
  double norm_eps = 1e-5;
  double rope_base = 10000;
  bool tie_embeddings = true;
  FeedForwardConfig ffn;
  MoeConfig moe;

  int64_t moe_layers() const { return moe.every_n_layers > 0 ? layers / moe.every_n_layers : 0; }
  bool is_moe_layer(int64_t layer) const { return moe.every_n_layers > 0 && (layer + 1) % moe.every_n_layers == 0; }
  int64_t head_size() const { return hidden_size / attention_heads; }
  // Width of a sub-token.
  int64_t sub_token_size() const { return hidden_size / moe.heads; }
};

// Slots an expert has for the `rows` sub-tokens of one micro-batch: k * ceil(factor * rows / experts), where factor is
// taken as the decimal number it was written as (exact, so that 1.1 * 10 is 11 and never 12). Dropless: 0.
int64_t expert_capacity(const MoeConfig& moe, std::optional<double> capacity_factor, int64_t rows);

}  // namespace mhmoe::nn
