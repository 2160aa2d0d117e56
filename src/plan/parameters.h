// How many parameters a model has, by part, from its configuration alone.
#pragma once

#include <cstdint>

#include "nn/model_config.h"

namespace mhmoe::plan {

struct ParametersByPart {
  int64_t embedding = 0;
  int64_t attention = 0;
  int64_t norms = 0;
  int64_t dense_ffn = 0;  // feed-forwards of the dense blocks
  int64_t head_and_merge = 0;
  int64_t router = 0;
  int64_t experts = 0;  // the routed ones
  int64_t shared_expert = 0;
  int64_t lm_head = 0;  // 0 when tied to the embedding

  int64_t total() const { return non_expert() + experts; }
  int64_t non_expert() const {
    return embedding + attention + norms + dense_ffn + head_and_merge + router + shared_expert + lm_head;
  }
};

// vocab_size must be filled in.
ParametersByPart count_parameters(const nn::ModelConfig& config);

// Of every routed expert, those that one token can reach: its heads x top_k choices, if all of them differ. The rest is
// always active.
ParametersByPart count_active_parameters(const nn::ModelConfig& config);

// Of one feed-forward on rows of `width` with `hidden` inner columns: weights, and biases if it has them.
double feed_forward_weights(const nn::FeedForwardConfig& ffn, double width, double hidden);
double feed_forward_biases(const nn::FeedForwardConfig& ffn, double width, double hidden);

}  // namespace mhmoe::plan
