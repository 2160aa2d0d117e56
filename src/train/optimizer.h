// Adam and AdamW over the flat vectors of a ParameterStore, with clipping by the global norm and refusal of bad steps.
#pragma once

#include <vector>

#include "nn/parameters.h"
#include "train/run_config.h"
#include "train/spike_guard.h"

namespace mhmoe::train {

// The numbers of one step that live on the device; they come to the host in one copy. State arena.
struct StepScalars {
  explicit StepScalars(Context& ctx);

  Tensor all;          // f32, the four below
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

  // Allocates the moments, zero, in the state arena. `parameters` must be allocated and outlive the optimizer.
  // clip_norm 0: no clipping.
  Optimizer(Context& ctx, nn::ParameterStore& parameters, const OptimizerConfig& config, double clip_norm);

  // One update from the gradients in the store, which are zero afterwards; scalars.loss is the step's loss.
  Outcome step(Context& ctx, const StepScalars& scalars, double learning_rate, const StepLimits& limits = {});

  // Updates made; refused ones do not count.
  int64_t updates() const { return updates_; }
  // After the moments were filled with those of a run that had made so many.
  void set_updates(int64_t updates) { updates_ = updates; }
  // f32, laid out like the store's flat vectors.
  const Tensor& moment1() const { return moment1_; }
  const Tensor& moment2() const { return moment2_; }

 private:
  // A run of parameters that share a weight decay, as elements of the flat vectors.
  struct Segment {
    int64_t begin, end;
    double weight_decay;
  };

  void make_segments();
  void update(Context& ctx, const StepScalars& scalars, const Segment& segment) const;

  nn::ParameterStore& parameters_;
  OptimizerConfig config_;
  double clip_norm_;
  std::vector<Segment> segments_;
  Tensor moment1_, moment2_;
  int64_t updates_ = 0;
};

}  // namespace mhmoe::train
