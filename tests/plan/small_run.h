// A model with a bit of everything, and steps of two micro-batches.
#pragma once

#include "train/run_config.h"

namespace mhmoe::plan {

inline train::RunConfig small_run() {
  train::RunConfig config;
  config.data.sequence_length = 24;
  config.model.vocab_size = 101;
  config.model.layers = 4;
  config.model.hidden_size = 48;
  config.model.attention_heads = 4;
  config.model.ffn.hidden_size = 40;
  config.model.moe.every_n_layers = 2;
  config.model.moe.experts = 5;
  config.model.moe.top_k = 2;
  config.model.moe.heads = 3;
  config.model.moe.expert_hidden_size = 24;
  config.train.steps = 400;
  config.train.batch_tokens = 4 * 24;
  config.train.micro_batch_sequences = 2;
  return config;
}

}  // namespace mhmoe::plan
