// What is looked at within single steps: a dump of all tensors, a record of the routing.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "train/dump.h"
#include "train/routing_record.h"
#include "train/run_config.h"

namespace mhmoe::train {

class StepObservation {
 public:
  // dump_folder empty: no dump. routing_every 0: no records.
  struct Plan {
    std::string dump_folder;
    int64_t dump_step = 1;
    int64_t routing_every = 0;
    int64_t last_step = 0;
  };
  // All ranks of the job have one, and plans with the same records. `ctx`, `moe` and `job` must outlive it.
  StepObservation(Context& ctx, const nn::MoeConfig& moe, Job& job, Plan plan)
      : ctx_(ctx), moe_(moe), job_(job), plan_(std::move(plan)) {}

  // Around the computation of a step, counted from 1. The routing of the first and the last is recorded too.
  void begin(int64_t step);
  // Writes the dump if there is one.
  std::optional<RoutingRecord> end(int64_t step);

 private:
  Context& ctx_;
  const nn::MoeConfig& moe_;
  Job& job_;
  Plan plan_;
  std::optional<DumpObserver> dump_;
  std::optional<RoutingRecorder> routing_;
  std::optional<ObserverPair> both_;
};

}  // namespace mhmoe::train
