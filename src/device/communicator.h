// Collectives over the ranks of a job. Every call has a group-of-one meaning, so that callers have no branch.
#pragma once

#include "core/tensor.h"

namespace mhmoe {

class MHMOE_API Communicator {
 public:
  virtual ~Communicator();
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // values: f32, summed element by element over all ranks, in place.
  virtual void all_reduce_sum(const Tensor& values) = 0;
};

}  // namespace mhmoe
