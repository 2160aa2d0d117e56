#include "train/group_options.h"

#include <algorithm>

namespace mhmoe::train {
namespace {

// Of the rows that a layer sends to each rank in one of its transfers; dropless, where experts' loads are equal.
int64_t dispatch_message_bytes(const RunConfig& config, DType compute, int64_t ranks) {
  const nn::MoeConfig& moe = config.model.moe;
  if (config.model.moe_layers() == 0) return 0;
  const int64_t rows = config.train.micro_batch_sequences * config.data.sequence_length * moe.heads;
  const int64_t slots =
      moe.capacity_factor ? moe.experts * nn::expert_capacity(moe, moe.capacity_factor, rows) : rows * moe.top_k;
  const int64_t chunks = std::min(config.parallel.overlap_chunks, moe.experts / ranks);
  return slots / ranks / chunks * config.model.sub_token_size() * static_cast<int64_t>(size_of(compute));
}

}  // namespace

comm::GroupOptions group_options(const RunConfig& config, DType compute, const comm::Layout& layout,
                                 std::vector<int> nodes) {
  return {.nodes = std::move(nodes),
          .hierarchical = config.parallel.hierarchical_all_to_all,
          .message_bytes = dispatch_message_bytes(config, compute, layout.expert_parallel_size)};
}

}  // namespace mhmoe::train
