// The gradients of a step: accumulated over this rank's micro-batches, then summed over ranks, so that each rank has
// the whole sum of the shards it owns.
#pragma once

#include <deque>
#include <optional>
#include <vector>

#include "comm/groups.h"
#include "nn/gradient_sink.h"
#include "train/gradient_tree.h"

namespace mhmoe::train {

class Gradients final : public nn::GradientSink {
 public:
  // micro_batches: of a step, on this rank. width_invariant: sums follow the tree of gradient_tree.h. All must outlive
  // it; parameters are allocated.
  Gradients(Context& ctx, nn::ParameterStore& parameters, const comm::ParallelGroups& groups, int64_t micro_batches,
            bool width_invariant);

  // A step is: for each micro-batch a backward pass and end_micro_batch, in order; begin_last before the last of them,
  // during whose backward buckets are reduced over ranks as they become complete; then finish.
  Tensor gradient_of(const nn::Parameter& parameter) override { return gradient_of(parameter, 0); }
  Tensor gradient_of(const nn::Parameter& parameter, int64_t source) override;
  void completed_from(int64_t order) override;
  void begin_last() { last_ = !tree(); }
  void end_micro_batch();
  // The owned parts of the store's buckets hold the sums over all ranks afterwards; the rest is undefined.
  void finish();
  void clear() { ctx_.fill_zero(parameters_.gradient()); }

 private:
  bool tree() const { return everywhere_.has_value(); }
  Communicator& ranks_of(const nn::Bucket& bucket) const;
  void start(const nn::Bucket& bucket);
  void finish_tree();

  struct Reduction {
    Communicator* ranks;
    Transfer transfer;
  };

  Context& ctx_;
  nn::ParameterStore& parameters_;
  const comm::ParallelGroups& groups_;
  int64_t experts_begin_ = 0;          // flat elements before those of experts
  std::optional<SumTree> everywhere_;  // of the parameters that all ranks have
  std::vector<SumTree> of_source_;     // of experts, by the rank whose micro-batches they come from
  std::vector<Tensor> sums_;           // theirs; kept for its memory
  bool last_ = false;
  std::vector<bool> started_;  // by bucket
  std::deque<Reduction> under_way_;
};

}  // namespace mhmoe::train
