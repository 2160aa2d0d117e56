// The one seam through which parameter gradients leave backward passes.
#pragma once

#include "nn/parameters.h"

namespace mhmoe::nn {

class GradientSink {
 public:
  virtual ~GradientSink() = default;
  // The f32 tensor of the parameter's shape onto which a backward pass *accumulates*; zeroed by the sink's owner.
  virtual Tensor gradient_of(const Parameter& parameter) = 0;
  // Of an expert: the part that comes from the micro-batch of rank `source` of the expert-parallel group.
  virtual Tensor gradient_of(const Parameter& parameter, int64_t /*source*/) { return gradient_of(parameter); }
  // This backward pass adds no more to parameters from Parameter::order `order` on.
  virtual void completed_from(int64_t /*order*/) {}
};

// Straight into Parameter::gradient: one process, sums in the order of micro-batches.
class DirectGradientSink final : public GradientSink {
 public:
  Tensor gradient_of(const Parameter& parameter) override { return parameter.gradient; }
};

}  // namespace mhmoe::nn
