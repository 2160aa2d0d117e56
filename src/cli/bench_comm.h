// `mhmoe bench comm`.
#pragma once

#include <CLI/CLI.hpp>

namespace mhmoe::cli {

void add_bench_comm_command(CLI::App& bench);

}  // namespace mhmoe::cli
