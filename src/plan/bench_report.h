// The table and the JSON object that `mhmoe bench ops` prints.
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

}  // namespace mhmoe::plan
