#include "train/gradients.h"

#include <algorithm>

namespace mhmoe::train {
namespace {

// A communicator keeps the last 64 transfers.
constexpr size_t kMostUnderWay = 32;

Tensor view_of(const Tensor& flat, int64_t begin, const nn::Parameter& parameter) {
  return {flat.slice(parameter.offset - begin, parameter.count()).data, flat.dtype, parameter.dims, flat.device};
}

}  // namespace

Gradients::Gradients(Context& ctx, nn::ParameterStore& parameters, const comm::ParallelGroups& groups,
                     int64_t micro_batches, bool width_invariant)
    : ctx_(ctx), parameters_(parameters), groups_(groups), started_(parameters.buckets().size()) {
  if (!width_invariant) return;
  const Tensor& flat = parameters.gradient();
  experts_begin_ = flat.count();
  for (const nn::Bucket& bucket : parameters.buckets()) {
    if (bucket.placement == nn::Placement::kWithExperts) experts_begin_ = std::min(experts_begin_, bucket.begin);
  }
  const int64_t of_experts = flat.count() - experts_begin_;
  everywhere_.emplace(ctx, flat.slice(0, experts_begin_), micro_batches);
  for (int source = 0; source < groups.layout.expert_parallel_size; ++source) {
    const Tensor first = source == 0 ? flat.slice(experts_begin_, of_experts)
                                     : ctx.state().allocate(kOtherRanksName, DType::kF32, {of_experts});
    ctx.fill_zero(first);
    of_source_.emplace_back(ctx, first, micro_batches);
  }
}

Tensor Gradients::gradient_of(const nn::Parameter& parameter, int64_t source) {
  if (!tree()) return parameter.gradient;
  if (parameter.placement == nn::Placement::kEverywhere) return view_of(everywhere_->top(), 0, parameter);
  return view_of(of_source_[static_cast<size_t>(source)].top(), experts_begin_, parameter);
}

Communicator& Gradients::ranks_of(const nn::Bucket& bucket) const {
  return bucket.placement == nn::Placement::kEverywhere ? *groups_.world : *groups_.replica;
}

void Gradients::start(const nn::Bucket& bucket) {
  Communicator& ranks = ranks_of(bucket);
  if (ranks.size() == 1) return;
  if (under_way_.size() == kMostUnderWay) {
    under_way_.front().ranks->wait(under_way_.front().transfer);
    under_way_.pop_front();
  }
  under_way_.push_back({&ranks, ranks.reduce_scatter_sum(bucket.owned_gradient(), bucket.gradient, "gradients")});
}

// The last bucket's parameters were added last, and their gradients are complete first.
void Gradients::completed_from(int64_t order) {
  if (!last_) return;
  const std::vector<nn::Bucket>& buckets = parameters_.buckets();
  for (size_t i = buckets.size(); i-- > 0;) {
    if (started_[i] || buckets[i].order < order) continue;
    started_[i] = true;
    start(buckets[i]);
  }
}

void Gradients::end_micro_batch() {
  if (!tree()) return;
  everywhere_->push(ctx_);
  for (SumTree& source : of_source_) source.push(ctx_);
}

void Gradients::finish() {
  if (tree()) return finish_tree();
  last_ = true;
  completed_from(0);
  for (const Reduction& reduction : under_way_) reduction.ranks->wait(reduction.transfer);
  under_way_.clear();
  last_ = false;
  started_.assign(started_.size(), false);
}

void Gradients::finish_tree() {
  everywhere_->result();
  sums_.clear();
  for (SumTree& source : of_source_) sums_.push_back(source.result());
  sum_pairwise(ctx_, sums_);
  for (size_t i = 1; i < sums_.size(); ++i) ctx_.fill_zero(sums_[i]);
  for (const nn::Bucket& bucket : parameters_.buckets()) {
    Communicator& ranks = ranks_of(bucket);
    if (ranks.size() > 1) reduce_scatter_tree(ctx_, ranks, bucket.owned_gradient(), bucket.gradient);
  }
}

}  // namespace mhmoe::train
