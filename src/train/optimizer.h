// Adam and AdamW over the shards that this rank owns of a ParameterStore (ZeRO-1), with clipping by the global norm and
// refusal of bad steps.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "comm/groups.h"
#include "nn/parameters.h"
#include "ops/adam.h"
#include "train/run_config.h"
#include "train/spike_guard.h"

namespace mhmoe::train {

// The numbers of one step that live on the device: no kernel takes any of them as an argument, so that a recorded step
// stays good.
struct StepScalars {
  static constexpr int64_t kInputs = ops::kStepScalarCount + 1;
  static constexpr int64_t kCount = kInputs + 2;

  // all_words: f32 [kCount], which the tensors below are parts of.
  explicit StepScalars(const Tensor& all_words);

  Tensor words;        // as given
  Tensor inputs;       // f32 [kInputs], the next two: what the host uploads at the step's begin
  Tensor update;       // f32 [ops::kStepScalarCount]
  Tensor loss_scale;   // f32 [1], 1 / counted targets of the step
  Tensor sum_squares;  // f32 [1], of the gradient
  Tensor loss;         // f32 [1], mean cross-entropy of the step in nats; the trainer adds micro-batches up here
};

class Optimizer {
 public:
  struct Outcome {
    double loss = 0;
    double gradient_norm = 0;  // before clipping
    bool refused = false;      // not finite or above the limits: weights and moments are as before
  };

  struct Options {
    double clip_norm = 0;          // 0: no clipping
    bool width_invariant = false;  // the global norm has the same bits at every number of ranks
  };

  // Allocates the moments, zero, in the state arena. `parameters` must be allocated and outlive the optimizer, and so
  // must `groups`.
  Optimizer(Context& ctx, nn::ParameterStore& parameters, const OptimizerConfig& config, const Options& options,
            const comm::ParallelGroups& groups);

  // One update is these three in order. First the host's part of scalars.update, to be uploaded:
  std::array<float, ops::kStepScalarCount> inputs(double learning_rate, const StepLimits& limits) const;
  // the update from the summed gradients of the owned shards in the store, after which every rank has all values;
  // scalars.loss is the step's loss;
  void update(Context& ctx, const StepScalars& scalars);
  // and what came of it, from a copy of all scalars.
  Outcome finish(std::span<const float> words);

  // Updates made; refused ones do not count.
  int64_t updates() const { return updates_; }
  // After the moments were filled with those of a run that had made so many.
  void set_updates(int64_t updates) { updates_ = updates; }
  // f32 [owned_count()], by bucket.
  const Tensor& moment1() const { return moment1_; }
  const Tensor& moment2() const { return moment2_; }

 private:
  void sum_squares(Context& ctx, const StepScalars& scalars);
  void update_bucket(Context& ctx, const StepScalars& scalars, const nn::Bucket& bucket) const;
  void gather_values() const;

  nn::ParameterStore& parameters_;
  OptimizerConfig config_;
  Options options_;
  const comm::ParallelGroups& groups_;
  Tensor norm_parts_;  // f32 [ranks], their shares of the sum of squares
  Tensor moment1_, moment2_;
  std::vector<Tensor> owned_gradients_;  // by bucket; kept for a width_invariant norm alone
  int64_t updates_ = 0;
};

}  // namespace mhmoe::train
