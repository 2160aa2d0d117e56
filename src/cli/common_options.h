// Options that several subcommands share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "device/backend.h"

namespace mhmoe::cli {

struct DeviceOptions {
  std::string device = "auto";
  int threads = 0;  // 0: as many as the machine has
};

// --set KEY=VALUE, repeated.
void add_set_option(CLI::App& command, std::vector<std::string>& overrides);
// --device and --threads.
void add_device_options(CLI::App& command, DeviceOptions& options);

// Sets the number of threads, chooses the backend, and says in the log which and why. Throws Error(kDevice) also for a
// backend that lacks kernels.
const Backend& open_device(const DeviceOptions& options);

}  // namespace mhmoe::cli
