// Small models that between them turn every switch of the configuration, alone and combined.
#pragma once

#include <ostream>

#include "reference/model.h"

namespace mhmoe::reference {

struct Variant {
  std::string name;
  nn::ModelConfig config;
  bool uncounted_targets = false;  // a third of the targets is -1
};

inline std::ostream& operator<<(std::ostream& out, const Variant& variant) {
  return out << variant.name;
}

inline nn::ModelConfig small_config() {
  nn::ModelConfig config;
  config.vocab_size = 11;
  config.layers = 1;
  config.hidden_size = 8;
  config.attention_heads = 2;
  config.ffn.hidden_size = 6;
  config.moe.experts = 3;
  config.moe.expert_hidden_size = 4;
  config.moe.balance_loss_weight = 0.2;  // large enough to be seen in every gradient it reaches
  return config;
}

inline nn::ModelConfig small_moe(int64_t heads, int64_t top_k, int64_t hidden_size = 8) {
  nn::ModelConfig config = small_config();
  config.hidden_size = hidden_size;
  config.moe.every_n_layers = 1;
  config.moe.heads = heads;
  config.moe.top_k = top_k;
  return config;
}

inline void add_dense_variants(std::vector<Variant>& variants) {
  const auto add = [&](const char* name, auto&& change, bool uncounted = false) {
    nn::ModelConfig config = small_config();
    change(config);
    variants.push_back({name, config, uncounted});
  };
  add("dense_swiglu", [](nn::ModelConfig& c) { c.layers = 2; });
  add("dense_relu", [](nn::ModelConfig& c) { c.ffn.activation = ops::Activation::kRelu; });
  add("dense_gelu", [](nn::ModelConfig& c) { c.ffn.activation = ops::Activation::kGelu; });
  add("dense_biases", [](nn::ModelConfig& c) { c.attention_bias = c.ffn.bias = true; });
  add(
      "dense_untied_uncounted", [](nn::ModelConfig& c) { c.tie_embeddings = false; }, true);
}

inline void add_moe_variants(std::vector<Variant>& variants) {
  const auto add = [&](const char* name, int64_t heads, int64_t top_k, auto&& change, int64_t width = 8) {
    nn::ModelConfig config = small_moe(heads, top_k, width);
    change(config.moe, config);
    variants.push_back({name, config});
  };
  using Moe = nn::MoeConfig;
  using Model = nn::ModelConfig;
  add("smoe_k1", 1, 1, [](Moe&, Model&) {});
  add("smoe_k2_gelu_biases", 1, 2, [](Moe&, Model& c) {
    c.ffn.activation = ops::Activation::kGelu;
    c.attention_bias = c.ffn.bias = true;
  });
  add("smoe_with_projections", 1, 1, [](Moe& m, Model&) { m.head_layer = m.merge_layer = true; });
  add("mhmoe_h2_k2", 2, 2, [](Moe&, Model&) {});
  add(
      "mhmoe_h3_every_second_layer", 3, 2,
      [](Moe& m, Model& c) {
        m.every_n_layers = 2;
        c.layers = 2;
      },
      12);
  add("mhmoe_h4_half_capacity", 4, 1, [](Moe& m, Model&) { m.capacity_factor = 0.5; });
  add("mhmoe_h2_without_projections", 2, 2, [](Moe& m, Model&) { m.head_layer = m.merge_layer = false; });
  add("mhmoe_h2_head_only_no_bias", 2, 1, [](Moe& m, Model&) {
    m.merge_layer = false;
    m.projection_bias = false;
  });
  add("mhmoe_h4_merge_only_relu", 4, 2, [](Moe& m, Model& c) {
    m.head_layer = false;
    c.ffn.activation = ops::Activation::kRelu;
  });
  add("inner_residual", 2, 2, [](Moe& m, Model&) { m.residual = nn::MoeResidual::kInner; });
  add("renormalised", 2, 2, [](Moe& m, Model&) { m.router.normalize_top_k = true; });
  add("dropless_all_choices_k3", 2, 3, [](Moe& m, Model&) {
    m.experts = 4;
    m.capacity_factor = std::nullopt;
    m.balance_loss_counts = ops::BalanceCounts::kAllChoices;
  });
  add("shared_expert", 2, 1, [](Moe& m, Model&) { m.shared_expert_hidden_size = 5; });
}

// Everything at once, with dropped assignments and with none, and targets that are not counted.
inline void add_combined_variants(std::vector<Variant>& variants) {
  nn::ModelConfig config = small_moe(2, 2);
  config.layers = 2;
  config.tie_embeddings = false;
  config.attention_bias = config.ffn.bias = true;
  config.moe.residual = nn::MoeResidual::kInner;
  config.moe.router.normalize_top_k = true;
  config.moe.shared_expert_hidden_size = 5;
  config.moe.balance_loss_counts = ops::BalanceCounts::kAllChoices;
  config.moe.capacity_factor = 0.75;
  variants.push_back({"everything_with_drops", config, true});
  config.moe.capacity_factor = std::nullopt;
  config.ffn.activation = ops::Activation::kGelu;
  variants.push_back({"everything_dropless", config, true});
}

inline std::vector<Variant> all_variants() {
  std::vector<Variant> variants;
  add_dense_variants(variants);
  add_moe_variants(variants);
  add_combined_variants(variants);
  return variants;
}

inline Batch random_batch(const nn::ModelConfig& config, int64_t sequences, int64_t length, bool uncounted_targets,
                          uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_int_distribution<int64_t> token(0, config.vocab_size - 1);
  Batch batch{.length = length, .tokens = {}, .targets = {}};
  for (int64_t i = 0; i < sequences * length; ++i) {
    batch.tokens.push_back(token(engine));
    batch.targets.push_back(uncounted_targets && i % 3 == 1 ? -1 : token(engine));
  }
  return batch;
}

}  // namespace mhmoe::reference
