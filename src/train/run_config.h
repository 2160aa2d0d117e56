// One experiment: plain data. train/config reads it from strict JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "comm/hierarchy.h"
#include "core/dtype.h"
#include "data/on_bad_block.h"
#include "nn/model_config.h"

namespace mhmoe::train {

struct SourceConfig {
  std::string path;  // prefix of a shard: PATH.bin and PATH.idx
  double weight = 1.0;
};

struct ValidationConfig {
  std::string name;
  std::string path;
};

struct DataConfig {
  std::vector<SourceConfig> train;
  std::vector<ValidationConfig> validation;
  std::string tokenizer;  // a SentencePiece .model file, or "bytes"
  int64_t sequence_length = 2048;
  data::OnBadBlock on_bad_block = data::OnBadBlock::kStop;
};

enum class Precision : uint8_t { kAuto, kFp32, kBf16 };
// As configurations call it: "bf16" or "fp32".
constexpr std::string_view precision_name(DType compute) {
  return compute == DType::kBF16 ? "bf16" : "fp32";
}
enum class OptimizerKind : uint8_t { kAdamW, kAdam };
enum class WeightDecayOn : uint8_t { kAll, kMatrices };
enum class Decay : uint8_t { kLinear, kCosine };
enum class Recompute : uint8_t { kNone, kBlock };

struct OptimizerConfig {
  OptimizerKind kind = OptimizerKind::kAdamW;  // adamw: decoupled weight decay; adam: added to the gradient
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-6;
  double weight_decay = 0.1;
  WeightDecayOn weight_decay_on = WeightDecayOn::kAll;
};

struct LearningRateConfig {
  double peak = 6e-4;
  double final = 3e-5;
  int64_t warmup_steps = 375;
  Decay decay = Decay::kLinear;
};

// A step whose loss or gradient norm lies more than `threshold` robust deviations above the median of the last
// window_steps accepted steps is refused; docs/numerics.md. threshold 0: off.
struct SpikeGuardConfig {
  double threshold = 0;
  int64_t window_steps = 128;
};

struct TrainConfig {
  int64_t steps = 100000;
  int64_t batch_tokens = 524288;
  int64_t micro_batch_sequences = 8;
  Precision precision = Precision::kAuto;
  OptimizerConfig optimizer;
  LearningRateConfig learning_rate;
  double gradient_clip_norm = 2.0;  // 0: off
  Recompute recompute = Recompute::kNone;
  bool cuda_graphs = false;
  bool forbid_host_sync = false;   // for finding such waits; observed steps are exempt
  int64_t max_refused_steps = 10;  // in a row
  SpikeGuardConfig spike_guard;
};

struct EvaluationConfig {
  int64_t every_steps = 1000;
  int64_t tokens = 1048576;
};

struct CheckpointConfig {
  int64_t every_steps = 5000;  // 0: only when the run ends or is stopped
  int64_t keep_last = 3;
  int64_t keep_every_steps = 0;  // these are never deleted; 0: none
  int64_t max_failed_saves = 3;  // in a row
  bool asynchronous = true;
};

struct LogConfig {
  int64_t every_steps = 10;
  int64_t routing_every_steps = 1000;  // 0: none
};

using comm::Hierarchical;

// Without effect on one rank.
struct ParallelConfig {
  int64_t expert_parallel_size = 0;  // 0 means null: the greatest common divisor of ranks and experts
  int64_t overlap_chunks = 2;        // groups of a rank's experts whose transfers overlap with their products
  bool width_invariant = false;
  bool verify_transfers = false;
  Hierarchical hierarchical_all_to_all = Hierarchical::kAuto;
  int64_t ranks_per_node = 0;  // 0 means null: as the launcher says
  int64_t timeout_seconds = 600;
};

struct RunConfig {
  std::string name = "run";
  uint64_t seed = 1;
  std::string output_dir = "runs";
  DataConfig data;
  nn::ModelConfig model;  // model.vocab_size 0 means null: the tokenizer's size
  TrainConfig train;
  ParallelConfig parallel;
  EvaluationConfig evaluation;
  CheckpointConfig checkpoint;
  LogConfig log;
};

}  // namespace mhmoe::train
