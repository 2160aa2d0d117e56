#include "cli/bench_model.h"

namespace mhmoe::cli {

void add_model_options(CLI::App& command, BenchModel& model, const BenchCounts& counts) {
  command.add_option("CONFIG", model.file, "the configuration; its data section is not needed")->required();
  add_set_option(command, model.overrides);
  add_device_options(command, model.device);
  add_number(command, "--warmup", model.options.warmup, 0, 1000, counts.warmup);
  add_number(command, "--steps", model.options.steps, 1, 100000, counts.steps);
  command.add_flag("--json", model.json, "print one JSON object");
}

}  // namespace mhmoe::cli
