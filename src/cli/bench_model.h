// What the benchmarks of a model are told: `mhmoe bench ops`, train, evaluate and generate.
#pragma once

#include "cli/common_options.h"
#include "plan/bench.h"

namespace mhmoe::cli {

struct BenchModel {
  std::string file;
  std::vector<std::string> overrides;
  DeviceOptions device;
  plan::BenchOptions options;
  bool json = false;
};

// CONFIG, --set, --device and what belongs to it, --warmup, --steps and --json. What the two numbers count:
struct BenchCounts {
  const char* warmup = "runs before the first that is timed";
  const char* steps = "runs that are timed";
};
void add_model_options(CLI::App& command, BenchModel& model, const BenchCounts& counts = {});

}  // namespace mhmoe::cli
