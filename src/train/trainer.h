// One training step after another: micro-batches, gradients, update; every rank of a job has a trainer, and all step
// together. Files, logs and evaluation are train/run's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "comm/groups.h"
#include "train/batch.h"
#include "train/gradients.h"
#include "train/moe_summary.h"
#include "train/optimizer.h"
#include "train/spike_guard.h"
#include "train/step_memory.h"
#include "train/task.h"

namespace mhmoe::train {

// The dtype of matrix products that a run uses: what the config says, or for "auto" what the device is best at.
DType compute_dtype(Precision precision, bool device_prefers_bf16);

enum class Refusal : uint8_t { kNone, kNotFinite, kSpike };

struct StepResult {
  int64_t step = 0;          // counted from 1
  double loss = 0;           // mean cross-entropy of the counted targets, nats, without the balance loss
  int64_t counted = 0;       // targets, of all ranks
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  Refusal refusal = Refusal::kNone;  // otherwise nothing was changed
  MoeSummary moe;
  double waiting_seconds = 0;  // of this rank, for rows of others; 0 where a device waits

  bool refused() const { return refusal != Refusal::kNone; }
};

// What a trainer knows beside tensors.
struct TrainerState {
  int64_t steps_done = 0;
  int64_t updates = 0;  // steps_done less those refused
  int64_t refused_in_a_row = 0;
  json::Value spike_guard;
};

// What a new trainer holds: the weights of the configuration's seed, or nothing yet, which saves the time of making
// those where a checkpoint is read anyway.
enum class Weights : uint8_t { kInitial, kNone };

class Trainer {
 public:
  // Builds and initialises this rank's part of the model and allocates its state. `config` (with model.vocab_size
  // filled in), `ctx` and `groups` must outlive the trainer. Throws Error(kConfig) where the batch does not divide over
  // ranks.
  Trainer(Context& ctx, const RunConfig& config, DType compute, const comm::ParallelGroups& groups,
          Weights weights = Weights::kInitial);
  // The trainer of a process alone.
  Trainer(Context& ctx, const RunConfig& config, DType compute);

  // This rank's part of a step's global batch: local_sequences() sequences, from number first_sequence() on.
  StepResult step(const HostBatch& batch);
  // Runs the step of `batch` again without an update and names the first tensor, in order of computation, that holds a
  // value that is not finite; empty if there is none.
  std::string first_not_finite(const HostBatch& batch);

  TrainerState state() const;
  // After weights and moments were filled with those of a run in that state.
  void restore(const TrainerState& state);
  Optimizer& optimizer() { return *optimizer_; }

  int64_t batch_sequences() const { return config_.train.batch_tokens / config_.data.sequence_length; }
  int64_t local_sequences() const { return batch_sequences() / groups_.layout.world; }
  int64_t first_sequence() const { return local_sequences() * groups_.layout.rank; }
  const comm::ParallelGroups& groups() const { return groups_; }
  int64_t steps_done() const { return steps_done_; }
  int64_t refused_in_a_row() const { return refused_in_a_row_; }
  Task& task() { return task_; }
  // Of the last step: [micro-batches of all ranks * MoE layers, experts], dropped assignments included.
  std::span<const int32_t> expert_loads() const { return memory_->host_load(); }

 private:
  // A part of the step that does the same every time: run as it is, or recorded and replayed.
  struct Part {
    std::unique_ptr<RecordedWork> recorded;
    uint64_t generation = 0;  // of the step arena when it was recorded
  };

  Trainer(Context& ctx, const RunConfig& config, DType compute, std::unique_ptr<comm::ParallelGroups> own_groups);

  // Of all ranks.
  int64_t micro_batches() const { return batch_sequences() / config_.train.micro_batch_sequences; }
  int64_t local_micro_batches() const { return micro_batches() / groups_.layout.world; }
  void run(Part& part, const std::function<void()>& work);
  void upload_scalars(int64_t counted, double learning_rate);
  void micro_batch();
  void last_micro_batch();
  void update();
  void accumulate(const HostBatch& batch);
  int64_t counted_by_all(const HostBatch& batch) const;
  void observe_parameters(const char* kind, Tensor nn::Parameter::*tensor);
  void read_result(StepResult& result);
  double waited_seconds();
  void judge(StepResult& result, bool refused);

  Context& ctx_;
  const RunConfig& config_;
  std::unique_ptr<comm::ParallelGroups> own_groups_;
  const comm::ParallelGroups& groups_;
  nn::ModelConfig model_;  // with this rank's experts
  CausalLm task_;
  std::optional<StepMemory> memory_;
  std::optional<Gradients> gradients_;
  std::optional<Optimizer> optimizer_;
  SpikeGuard spike_guard_;
  Part micro_batch_, last_micro_batch_, update_;
  bool ran_a_step_ = false;
  double waited_before_ = 0;
  int64_t steps_done_ = 0;
  int64_t refused_in_a_row_ = 0;
};

}  // namespace mhmoe::train
