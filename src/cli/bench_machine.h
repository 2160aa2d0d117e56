// `mhmoe bench gemm` and `mhmoe bench memory`.
#pragma once

#include <CLI/CLI.hpp>

namespace mhmoe::cli {

void add_bench_machine_commands(CLI::App& bench);

}  // namespace mhmoe::cli
