// Runs, layouts and clusters for the tests of plans for many ranks.
#pragma once

#include <string>

#include "plan/cluster.h"
#include "plan/small_run.h"
#include "train/config.h"

namespace mhmoe::plan {

// 4 experts in 2 of 4 layers, 3 heads, top-2; `micro_batches` of 2 x 24 tokens.
inline train::RunConfig run_of(int64_t micro_batches, int64_t experts = 4) {
  train::RunConfig config = small_run();
  config.model.moe.experts = experts;
  config.train.batch_tokens = micro_batches * 2 * 24;
  return config;
}

inline train::RunConfig paper2(const std::string& name) {
  train::RunConfig config = train::load_config(MHMOE_SOURCE_DIR "/configs/paper2/" + name + ".json", {});
  config.train.micro_batch_sequences = 1;
  return config;
}

inline comm::Layout layout(int world, int expert_parallel_size) {
  return {.world = world, .expert_parallel_size = expert_parallel_size, .rank = 0};
}

inline Cluster cluster(int ranks, int ranks_per_node) {
  return {.ranks = ranks, .ranks_per_node = ranks_per_node, .gpu = &find_gpu("h100")};
}

}  // namespace mhmoe::plan
