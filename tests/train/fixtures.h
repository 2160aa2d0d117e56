// Small runs for the tests of training.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "core/parallel_for.h"
#include "core/philox.h"
#include "cpu/backend.h"
#include "train/memory_need.h"
#include "train/trainer.h"

namespace mhmoe::train {

// Two blocks, the second MH-MoE with 2 heads and 4 experts; 2 micro-batches of 2 sequences of 8 tokens.
inline RunConfig tiny_config() {
  RunConfig config;
  config.seed = 7;
  config.data.sequence_length = 8;
  config.model.vocab_size = 32;
  config.model.layers = 2;
  config.model.hidden_size = 16;
  config.model.attention_heads = 2;
  config.model.ffn.hidden_size = 24;
  config.model.moe.every_n_layers = 2;
  config.model.moe.experts = 4;
  config.model.moe.top_k = 2;
  config.model.moe.heads = 2;
  config.model.moe.expert_hidden_size = 12;
  config.train.steps = 100;
  config.train.batch_tokens = 32;
  config.train.micro_batch_sequences = 2;
  config.train.precision = Precision::kFp32;
  config.train.learning_rate = {.peak = 1e-2, .final = 1e-3, .warmup_steps = 5, .decay = Decay::kLinear};
  config.train.gradient_clip_norm = 1.0;
  return config;
}

// Uniform tokens; sequence i has i % 3 targets that are not counted.
inline HostBatch random_batch(const RunConfig& config, uint64_t seed) {
  HostBatch batch(config.train.batch_tokens / config.data.sequence_length, config.data.sequence_length);
  const Philox random(seed, "test batch");
  const auto vocabulary = static_cast<float>(config.model.vocab_size);
  for (size_t i = 0; i < batch.tokens.size(); ++i) {
    batch.tokens[i] = static_cast<int32_t>(random.uniform(2 * i) * vocabulary);
    batch.targets[i] = static_cast<int32_t>(random.uniform(2 * i + 1) * vocabulary);
  }
  for (int64_t sequence = 0; sequence < batch.sequences; ++sequence) {
    std::fill_n(batch.targets.begin() + sequence * batch.length, std::min(sequence % 3, batch.length), -1);
  }
  return batch;
}

inline std::vector<float> to_host(Context& ctx, const Tensor& tensor) {
  std::vector<float> values(static_cast<size_t>(tensor.count()));
  ctx.download(values.data(), tensor);
  return values;
}

// A trainer on a CPU context of its own, with its memory reserved as a run does.
struct CpuTrainer {
  explicit CpuTrainer(RunConfig run_config, DType compute = DType::kF32)
      : config(std::move(run_config)),
        need(measure_memory(config, DeviceKind::kCpu, &cpu::backend().kernels, compute)) {
    ctx = cpu::backend().create_context(0);
    reserve_memory(*ctx, need);
    trainer = std::make_unique<Trainer>(*ctx, config, compute);
  }

  nn::ParameterStore& parameters() { return trainer->task().parameters(); }
  std::vector<float> weights() { return to_host(*ctx, parameters().master()); }

  RunConfig config;
  MemoryNeed need;
  std::unique_ptr<Context> ctx;
  std::unique_ptr<Trainer> trainer;
};

}  // namespace mhmoe::train
