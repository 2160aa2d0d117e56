// Where the rows of one training step went, for routing.jsonl: every number by formula in docs/numerics.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "device/context.h"
#include "device/job.h"
#include "nn/model_config.h"

namespace mhmoe::train {

// One MoE layer in one step. Counts are sums over the step's micro-batches, of all ranks; choices that were dropped
// count as made.
struct LayerRouting {
  int64_t layer = 0;                            // of the model, from 0
  std::vector<int64_t> load;                    // [E] choices naming each expert
  std::vector<int64_t> dropped;                 // [E] of these, beyond its capacity
  std::vector<std::vector<int64_t>> head_load;  // [heads][E] load by the sub-token's place in its token
  std::vector<int64_t> different_experts;       // [i]: tokens whose sub-tokens name i + 1 different experts
  double balance_loss = 0;                      // mean over micro-batches

  double mean_different_experts() const;
  double load_entropy() const;  // nats; ln E when even
  double load_max_over_mean() const;
};

struct RoutingRecord {
  std::vector<LayerRouting> layers;  // the MoE layers, from the first; none in a dense model

  // The line of routing.jsonl, without its end.
  std::string json_line(int64_t step) const;
};

// Set it on the context for one training step and read record() afterwards. Sees what MoE layers show, and takes
// "losses", which Trainer shows last of a micro-batch, for the micro-batch's end: what a recomputed block shows a
// second time within it is left out.
class RoutingRecorder final : public TensorObserver {
 public:
  // Both must outlive the recorder.
  RoutingRecorder(Context& ctx, const nn::MoeConfig& moe) : ctx_(ctx), moe_(moe) {}

  void record(const std::string& name, const Tensor& tensor) override;
  // Of all ranks of the job, which call together: the same on all of them, and at every number of ranks.
  RoutingRecord record(Job& job) const;

 private:
  void add_choices(LayerRouting& sums, const Tensor& expert_index) const;

  Context& ctx_;
  const nn::MoeConfig& moe_;
  std::map<int64_t, LayerRouting> sums_;                  // of this rank; balance_loss: not used
  std::map<int64_t, std::vector<float>> balance_losses_;  // a micro-batch
  std::set<std::string> seen_;                            // in this micro-batch
};

// Shows everything to two observers: a step can be dumped and recorded at once. Null: left out.
class ObserverPair final : public TensorObserver {
 public:
  ObserverPair(TensorObserver* first, TensorObserver* second) : first_(first), second_(second) {}

  void record(const std::string& name, const Tensor& tensor) override {
    if (first_ != nullptr) first_->record(name, tensor);
    if (second_ != nullptr) second_->record(name, tensor);
  }

 private:
  TensorObserver* first_;
  TensorObserver* second_;
};

}  // namespace mhmoe::train
