// The one seam through which parameter gradients leave backward passes.
#pragma once

#include "nn/parameters.h"

namespace mhmoe::nn {

class GradientSink {
 public:
  virtual ~GradientSink() = default;
  // The f32 tensor of the parameter's shape onto which a backward pass *accumulates*; zeroed by the sink's owner.
  virtual Tensor gradient_of(const Parameter& parameter) = 0;
  // The same for what the micro-batch of one rank of the expert-parallel group, `source`, gives to an expert.
  virtual Tensor gradient_of(const Parameter& parameter, int64_t /*source*/) { return gradient_of(parameter); }
};

// Straight into Parameter::gradient: one process, sums in the order of micro-batches.
class DirectGradientSink final : public GradientSink {
 public:
  Tensor gradient_of(const Parameter& parameter) override { return parameter.gradient; }
};

}  // namespace mhmoe::nn
