// The text and the JSON object that `mhmoe bench train` prints. docs/performance.md says what each figure means.
#pragma once

#include <string>

#include "core/json.h"
#include "plan/bench.h"
#include "plan/gpu.h"

namespace mhmoe::plan {

struct TrainReport {
  const train::RunConfig& config;
  DType compute;
  int threads;  // of the CPU
  const StepTimes& times;
  const Speeds& measured;     // on the same device in the same run
  const PartSeconds& floors;  // of a step, by these speeds
  const Gpu* gpu = nullptr;   // null where no data sheet is known

  double tokens_per_second() const;
  double model_flops_per_second() const;
  // Of all ranks, of which each measured while the others did.
  double peak_flops_per_second() const { return measured.flops(compute) * times.layout.world; }
  double share_of_peak() const { return model_flops_per_second() / peak_flops_per_second(); }
  // By the data sheet of every rank's GPU, which is known.
  double promised_flops_per_second() const { return gpu->flops(compute) * times.layout.world; }
  double mfu() const { return model_flops_per_second() / promised_flops_per_second(); }
  // Where the memory lies that training fills: the process where the device is a CPU, else the arenas.
  int64_t peak_memory_bytes() const;
  // What rows cost on their way through the experts: router, dispatch and combine; of the observed step.
  double routing_share() const;
};

std::string train_text(const TrainReport& report);
json::Value train_json(const TrainReport& report);

}  // namespace mhmoe::plan
