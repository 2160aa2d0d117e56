// What a step reads and writes on the device at addresses that never change, so that its parts can be recorded.
#pragma once

#include <span>
#include <vector>

#include "device/communicator.h"
#include "nn/pass.h"
#include "train/batch.h"
#include "train/optimizer.h"
#include "train/task.h"

namespace mhmoe::train {

// Copies as many sequences of `from` as `to` takes, beginning with number `first`.
void upload_sequences(Context& ctx, const DeviceBatch& to, const HostBatch& from, int64_t first);

// Tensors in the state arena. Micro-batches take turns in batch(), loss() and statistics(); what the host must know of
// a step, of all ranks, lies in one piece, which one download fetches.
class StepMemory {
 public:
  struct Shape {
    int64_t micro_batches;  // of this rank
    int64_t sequences, length, moe_layers, experts;
    int64_t ranks = 1, rank = 0;

    int64_t all_micro_batches() const { return micro_batches * ranks; }
  };

  StepMemory(Context& ctx, const Shape& shape);

  const DeviceBatch& batch() const { return batch_; }                  // one micro-batch
  const nn::MoeStatistics& statistics() const { return statistics_; }  // of one micro-batch
  const Tensor& loss() const { return loss_; }                         // f32 [1], of one micro-batch
  const StepScalars& scalars() const { return scalars_; }

  // Of a step, over this rank's micro-batches.
  size_t upload_bytes() const;
  // Puts micro-batch `index` of the step's batch into batch().
  void upload(Context& ctx, const HostBatch& step, int64_t index) const;
  // Copies loss() and statistics() to where micro-batch `index` has its own.
  void keep_statistics(Context& ctx, int64_t index) const;
  // Brings those of all ranks' micro-batches to all ranks, and adds up scalars().loss in the order of micro-batches:
  // the same bits at any number of ranks.
  void gather_statistics(Context& ctx, Communicator& world) const;
  // Fetches the scalars and every micro-batch's statistics: all that waits for the device in a step.
  void download(Context& ctx);

  // From the last download.
  std::span<const float> host_scalars() const { return std::span(words_).first(StepScalars::kCount); }
  std::span<const float> host_balance_loss() const { return balance_loss_; }  // [micro-batches * MoE layers]
  std::span<const int32_t> host_load() const { return load_; }                // [micro-batches * MoE layers, experts]

 private:
  Shape shape_;
  Tensor results_;           // the scalars, a loss a micro-batch, a record a micro-batch
  Tensor losses_, records_;  // parts of it
  Tensor loss_;
  Tensor record_;             // of one micro-batch: f32 balance losses [L], i32 loads [L, E]
  std::vector<float> words_;  // `results_` on the host
  std::vector<float> balance_loss_;
  std::vector<int32_t> load_;
  DeviceBatch batch_;
  nn::MoeStatistics statistics_;
  StepScalars scalars_;
};

}  // namespace mhmoe::train
