// One training-mode forward and backward on given tokens, with every named tensor kept: how a second program checks us.
#pragma once

#include <string>
#include <vector>

#include "core/safetensors.h"
#include "nn/model_config.h"

namespace mhmoe::train {

// A tensor copied to the host.
struct HostTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> dims;  // empty: a scalar
  std::vector<std::byte> bytes;

  Tensor view() const;
};

struct TraceOptions {
  DType compute = DType::kF32;
  bool recompute_blocks = false;
};

// weights: the parameters by name. tokens: `tokens` and `targets`, I64 [B, T], one micro-batch; target -1 is not
// counted. Returns logits, cross_entropy (mean over counted targets, nats), layers.{i}.output,
// layers.{i}.moe.{balance_loss,expert_index,gate_weight,slot}, and grad.<parameter> of
// cross_entropy + balance_loss_weight * sum of balance losses. Errors name file and tensor (kBadData).
std::vector<HostTensor> trace(Context& ctx, const nn::ModelConfig& config, const SafetensorsReader& weights,
                              const SafetensorsFile& tokens, const TraceOptions& options);

void write_trace(const std::string& path, const std::vector<HostTensor>& tensors);

}  // namespace mhmoe::train
