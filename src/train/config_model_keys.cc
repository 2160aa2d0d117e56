#include "train/config_model_keys.h"

#include "train/config_key.h"

namespace mhmoe::train {

using keys::above_min;
using keys::boolean;
using keys::choice;
using keys::decimals;
using keys::integer;
using keys::later;
using keys::Names;
using keys::number;
using keys::zero_is_null;

using ops::Activation;
using ops::BalanceCounts;

namespace {

constexpr double kMaxWidth = 1 << 20;

}  // namespace

std::vector<ConfigKey> model_keys() {
  const Names<Activation> activations = {
      {Activation::kSwiglu, "swiglu"}, {Activation::kRelu, "relu"}, {Activation::kGelu, "gelu"}};
  return {
      zero_is_null(integer(
          "model.vocab_size", 1, 1 << 24, "rows of the embedding; null: the tokenizer's size",
          [](auto& c) -> auto& { return c.model.vocab_size; })),
      integer(
          "model.layers", 1, 4096, "transformer blocks", [](auto& c) -> auto& { return c.model.layers; }),
      integer(
          "model.hidden_size", 2, kMaxWidth, "width of the residual stream",
          [](auto& c) -> auto& { return c.model.hidden_size; }),
      integer(
          "model.attention_heads", 1, 65536, "attention heads; must divide hidden_size into an even head size",
          [](auto& c) -> auto& { return c.model.attention_heads; }),
      boolean(
          "model.attention_bias", "biases on the attention projections",
          [](auto& c) -> auto& { return c.model.attention_bias; }),
      above_min(number(
          "model.norm_eps", 0, 1, "added to the mean square in RMSNorm",
          [](auto& c) -> auto& { return c.model.norm_eps; })),
      above_min(number(
          "model.rope_base", 0, 1e12, "base of the rotary angles", [](auto& c) -> auto& { return c.model.rope_base; })),
      boolean(
          "model.tie_embeddings", "the output layer uses the embedding's weights",
          [](auto& c) -> auto& { return c.model.tie_embeddings; }),
      choice(
          "model.ffn.activation", activations,
          "of every feed-forward: dense, expert and shared; swiglu has a gate matrix",
          [](auto& c) -> auto& { return c.model.ffn.activation; }),
      integer(
          "model.ffn.hidden_size", 1, kMaxWidth, "inner width of the dense feed-forward",
          [](auto& c) -> auto& { return c.model.ffn.hidden_size; }),
      boolean(
          "model.ffn.bias", "biases on every feed-forward: dense, expert and shared",
          [](auto& c) -> auto& { return c.model.ffn.bias; }),
      later("model.quantization.weights", {"\"none\"", "null"}, "quantization is", "BitNet weights"),
      later("model.quantization.activations", {"\"none\"", "null"}, "quantization is", "BitNet activations"),
  };
}

std::vector<ConfigKey> moe_layer_keys() {
  const Names<nn::MoeResidual> residuals = {{nn::MoeResidual::kOuter, "outer"}, {nn::MoeResidual::kInner, "inner"}};
  return {
      integer(
          "model.moe.every_n_layers", 0, 4096, "block i, from 0, is MoE if (i + 1) is a multiple; 0: a dense model",
          [](auto& c) -> auto& { return c.model.moe.every_n_layers; }),
      integer(
          "model.moe.experts", 1, 65536, "experts of a layer", [](auto& c) -> auto& { return c.model.moe.experts; }),
      integer(
          "model.moe.top_k", 1, 65536, "experts that each token or sub-token goes to",
          [](auto& c) -> auto& { return c.model.moe.top_k; }),
      integer(
          "model.moe.heads", 1, 65536, "sub-tokens that a token is split into; 1: plain sparse MoE",
          [](auto& c) -> auto& { return c.model.moe.heads; }),
      integer(
          "model.moe.expert_hidden_size", 1, kMaxWidth, "inner width of an expert",
          [](auto& c) -> auto& { return c.model.moe.expert_hidden_size; }),
      boolean(
          "model.moe.head_layer", "the projection before the split; null: if heads > 1",
          [](auto& c) -> auto& { return c.model.moe.head_layer; }),
      boolean(
          "model.moe.merge_layer", "the projection after the merge; null: if heads > 1",
          [](auto& c) -> auto& { return c.model.moe.merge_layer; }),
      boolean(
          "model.moe.projection_bias", "biases on the head and merge layers",
          [](auto& c) -> auto& { return c.model.moe.projection_bias; }),
      choice(
          "model.moe.residual", residuals, "inner: each sub-token is also added to its experts' sum",
          [](auto& c) -> auto& { return c.model.moe.residual; }),
  };
}

std::vector<ConfigKey> moe_routing_keys() {
  const Names<BalanceCounts> counts = {{BalanceCounts::kFirstChoice, "first_choice"},
                                       {BalanceCounts::kAllChoices, "all_choices"}};
  return {
      later("model.moe.router.kind", {"\"linear\""}, "other routers are",
            "how scores come from a token: linear is softmax(x . e)"),
      boolean(
          "model.moe.router.normalize_top_k", "gate weights divided by their sum over the chosen experts",
          [](auto& c) -> auto& { return c.model.moe.router.normalize_top_k; }),
      decimals(above_min(number(
                   "model.moe.capacity_factor", 0, 64, "slots of an expert relative to an even load; null: dropless",
                   [](auto& c) -> auto& { return c.model.moe.capacity_factor; })),
               6),
      number(
          "model.moe.balance_loss_weight", 0, 1e6, "weight of the balance loss",
          [](auto& c) -> auto& { return c.model.moe.balance_loss_weight; }),
      choice(
          "model.moe.balance_loss_counts", counts, "choices that an expert's share in the balance loss counts",
          [](auto& c) -> auto& { return c.model.moe.balance_loss_counts; }),
      integer(
          "model.moe.shared_expert_hidden_size", 0, kMaxWidth, "inner width of the expert every token uses; 0: none",
          [](auto& c) -> auto& { return c.model.moe.shared_expert_hidden_size; }),
  };
}

}  // namespace mhmoe::train
