// Model FLOPs: what the mathematics asks for, whatever the hardware does. Every matrix counts once per use, 2 m n k;
// experts see top_k rows a sub-token; attention is causal. Padding, unused slots, element-wise work and recomputation
// count nothing.
#pragma once

#include <cstdint>

#include "nn/model_config.h"

namespace mhmoe::train {

struct FlopsByPart {
  double attention_projections = 0;  // q, k, v, out
  double attention = 0;              // scores and weighted values
  double dense_ffn = 0;              // feed-forwards of the dense blocks
  double head_and_merge = 0;
  double router = 0;
  double experts = 0;
  double shared_expert = 0;
  double lm_head = 0;

  double total() const;
};

// Of one forward pass, a token, averaged over the positions of a sequence.
FlopsByPart forward_flops_per_token(const nn::ModelConfig& config, int64_t sequence_length);
// Forward and backward: a backward pass has two products for every one of the forward.
double training_flops_per_token(const nn::ModelConfig& config, int64_t sequence_length);

}  // namespace mhmoe::train
