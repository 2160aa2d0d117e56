// The subcommands: each function adds one to the program, with its options, help, example and callback.
// Callbacks throw mhmoe::Error; main turns that into one line on standard error and the exit code.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "cli/common_options.h"
#include "comm/job.h"

namespace mhmoe::cli {

// What tests put others in for, to plant faults.
struct Surroundings {
  Job& (*job)() = comm::job;
  const Backend& (*open_device)(const DeviceOptions&) = cli::open_device;
};

void add_train_command(CLI::App& app, const Surroundings& surroundings = {});
void add_suite_command(CLI::App& app);
void add_evaluate_command(CLI::App& app);
void add_generate_command(CLI::App& app);
void add_prepare_command(CLI::App& app);
void add_plan_command(CLI::App& app);
void add_config_command(CLI::App& app);
void add_trace_command(CLI::App& app);
void add_checkpoint_command(CLI::App& app);
void add_bench_command(CLI::App& app);

// What --version prints: version, build options, libraries and the device that `--device auto` takes.
std::string version_text();

}  // namespace mhmoe::cli
