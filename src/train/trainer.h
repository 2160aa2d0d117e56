// One training step after another: micro-batches, gradients, update. Files, logs and evaluation are train/run's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "train/batch.h"
#include "train/moe_summary.h"
#include "train/optimizer.h"
#include "train/task.h"

namespace mhmoe::train {

// The dtype of matrix products that a run uses: what the config says, or for "auto" what the device is best at.
DType compute_dtype(Precision precision, bool device_prefers_bf16);

// Copies sequences [first, first + count) to the device, into the step arena.
DeviceBatch upload_batch(Context& ctx, const HostBatch& batch, int64_t first, int64_t count);

struct StepResult {
  int64_t step = 0;          // counted from 1
  double loss = 0;           // mean cross-entropy of the counted targets, nats, without the balance loss
  int64_t counted = 0;       // targets
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  bool refused = false;  // not finite: nothing was changed
  MoeSummary moe;
};

class Trainer {
 public:
  static constexpr int kRefusedInARow = 10;

  // Builds and initialises the model and allocates its state. `config` (with model.vocab_size filled in) must outlive
  // the trainer.
  Trainer(Context& ctx, const RunConfig& config, DType compute);

  // The global batch of one step: batch_sequences() sequences. Throws Error(kNumeric) when kRefusedInARow steps in a
  // row were refused.
  StepResult step(const HostBatch& batch);

  int64_t batch_sequences() const { return config_.train.batch_tokens / config_.data.sequence_length; }
  int64_t steps_done() const { return steps_done_; }
  Task& task() { return task_; }

 private:
  struct Statistics {
    Tensor balance_loss;  // f32 [micro-batches, MoE layers]
    Tensor load;          // i32 [micro-batches, MoE layers, experts]
  };

  int64_t micro_batches() const { return batch_sequences() / config_.train.micro_batch_sequences; }
  Statistics allocate_statistics();
  void micro_batch(const HostBatch& batch, int64_t index, const Statistics& statistics, float scale);
  MoeSummary summary_of(const Statistics& statistics);
  void observe_parameters(const char* kind, Tensor nn::Parameter::*tensor);
  void note_refusal(const StepResult& result);

  Context& ctx_;
  const RunConfig& config_;
  CausalLm task_;
  std::optional<StepScalars> scalars_;
  std::optional<Optimizer> optimizer_;
  nn::DirectGradientSink sink_;
  int64_t steps_done_ = 0;
  int refused_in_a_row_ = 0;
};

}  // namespace mhmoe::train
