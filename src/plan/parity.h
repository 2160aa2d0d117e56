// The parity solver: which experts make an MH-MoE layer as large, or as costly, as a baseline's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "nn/model_config.h"

namespace mhmoe::plan {

// A block's feed-forward or MoE layer. FLOPs of one token's forward pass (2 a multiply-add), counted as train/flops.h
// does; a dense feed-forward counts as an expert that every token uses.
struct LayerCost {
  double parameters = 0;
  double flops = 0;
};

// The shape of an MoE layer whose experts need not be whole, for equations.
struct ExpertShape {
  double hidden_size = 0;
  double experts = 0;
};

// Small terms are the router and all biases.
LayerCost moe_layer_cost(const nn::ModelConfig& config, ExpertShape shape, bool ignore_small_terms);
// Of the layer that a model's expert blocks have: its MoE layer, or for a dense model its feed-forward.
LayerCost layer_cost(const nn::ModelConfig& config, bool ignore_small_terms);

enum class MatchWhat : uint8_t { kParameters, kFlops, kBoth };

struct MatchOptions {
  MatchWhat what = MatchWhat::kBoth;
  bool ignore_small_terms = false;
  // Held fixed, for kParameters and kFlops: at most one; neither: the baseline's number of experts.
  std::optional<int64_t> experts;
  std::optional<int64_t> expert_hidden_size;
};

// A layer that can be built, and how far it is from the baseline's layer: (this - baseline) / baseline.
struct Candidate {
  int64_t expert_hidden_size = 0;
  int64_t experts = 0;
  LayerCost cost;
  double parameters_residual = 0;
  double flops_residual = 0;
};

struct Match {
  LayerCost baseline;
  ExpertShape exact;
  std::vector<Candidate> candidates;  // the best first
};

// `shape` is the model to size: heads, top_k, head and merge layers, biases and activation count; its experts and
// expert_hidden_size are what is looked for. Throws Error(kConfig) when there is no solution, saying why.
Match match(const nn::ModelConfig& baseline, const nn::ModelConfig& shape, const MatchOptions& options);

// The model's own experts as a candidate.
Candidate own_candidate(const nn::ModelConfig& model, const LayerCost& baseline, const MatchOptions& options);

// A baseline's model with MH-MoE layers of `heads` and `top_k` in place of its own.
nn::ModelConfig with_heads(const nn::ModelConfig& baseline, int64_t heads, int64_t top_k);

}  // namespace mhmoe::plan
