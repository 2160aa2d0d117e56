// Options that several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "device/backend.h"
#include "train/run_config.h"

namespace mhmoe::cli {

struct DeviceOptions {
  std::string device = "auto";
  int threads = 0;      // 0: as many as the machine has
  std::string cpu_isa;  // empty: the environment's, or the best that this CPU has
};

// --set KEY=VALUE, repeated.
CLI::Option* add_set_option(CLI::App& command, std::vector<std::string>& overrides);
// --device, --threads and --cpu-isa.
void add_device_options(CLI::App& command, DeviceOptions& options);

// An option that takes a number within limits; the help tells its default.
template <class T>
CLI::Option* add_number(CLI::App& command, const char* name, T& value, int64_t least, int64_t most,
                        const char* meaning) {
  return command.add_option(name, value, meaning)->check(CLI::Range(least, most))->capture_default_str();
}

// Sets the number of threads, chooses the backend, and says in the log which and why. Throws as open_backend.
const Backend& open_device(const DeviceOptions& options);

// The same for a benchmark: says so where the device's times mean nothing.
const Backend& open_to_measure(const DeviceOptions& options);

// A configuration whose model's size is wanted, so model.vocab_size is filled in: with what it says, or with the size
// of its tokenizer where that file exists. Throws Error(kMissingInput) where neither does.
train::RunConfig load_with_vocabulary(const std::string& file, const std::vector<std::string>& overrides);
// The same on every rank of the job, whose nodes and time-out it sets.
train::RunConfig load_for_job(Job& job, const std::string& file, const std::vector<std::string>& overrides);

}  // namespace mhmoe::cli
