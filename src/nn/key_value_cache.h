// What attention keeps of the positions it has seen, so that the next ones need no recomputation.
#pragma once

#include <vector>

#include "device/context.h"
#include "nn/model_config.h"

namespace mhmoe::nn {

class KeyValueCache {
 public:
  // In the state arena, in the compute dtype: room for `capacity` positions of each of `batch` sequences.
  KeyValueCache(Context& ctx, const ModelConfig& config, DType compute, int64_t batch, int64_t capacity);

  // [batch, attention heads, capacity, head size] of one block.
  const Tensor& keys(int64_t layer) const { return keys_[layer]; }
  const Tensor& values(int64_t layer) const { return values_[layer]; }

  int64_t capacity() const { return capacity_; }
  // Positions that every block has seen: the next forward pass brings the ones that follow.
  int64_t length() const { return length_; }
  void advance(int64_t positions) { length_ += positions; }
  void clear() { length_ = 0; }

 private:
  std::vector<Tensor> keys_, values_;
  int64_t capacity_;
  int64_t length_ = 0;
};

}  // namespace mhmoe::nn
