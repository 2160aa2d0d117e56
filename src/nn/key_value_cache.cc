#include "nn/key_value_cache.h"

namespace mhmoe::nn {

KeyValueCache::KeyValueCache(Context& ctx, const ModelConfig& config, DType compute, int64_t batch, int64_t capacity)
    : capacity_(capacity) {
  const auto allocate = [&] {
    return ctx.state().allocate("key-value cache", compute,
                                {batch, config.attention_heads, capacity, config.head_size()});
  };
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    keys_.push_back(allocate());
    values_.push_back(allocate());
  }
}

}  // namespace mhmoe::nn
