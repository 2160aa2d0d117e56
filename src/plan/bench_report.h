// The tables and JSON objects that `mhmoe bench` prints.
#pragma once

#include <string>

#include "core/json.h"
#include "plan/bench.h"
#include "plan/step_work.h"

namespace mhmoe::plan {

// A step's ops with their floors on `gpu` and, where they were timed, their times. gpu: null where no floor is known;
// times: empty for floors alone.
struct OpsReport {
  const train::RunConfig& config;
  DType compute;
  const std::vector<OpWork>& work;
  const Gpu* gpu = nullptr;
  std::vector<OpTime> times = {};
  std::string device = {};  // that was timed
  double idle_seconds = 0;  // of it
};

std::string ops_text(const OpsReport& report);
json::Value ops_json(const OpsReport& report);

struct TrainReport {
  const train::RunConfig& config;
  DType compute;
  const StepTimes& times;
  double matrix_peak = 0;    // FLOPs a second that one large product reached on the same device in the same run
  const Gpu* gpu = nullptr;  // null where no data sheet is known

  double tokens_per_second() const;
  double model_flops_per_second() const;
};

std::string train_text(const TrainReport& report);
json::Value train_json(const TrainReport& report);

}  // namespace mhmoe::plan
