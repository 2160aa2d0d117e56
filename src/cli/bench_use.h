// `mhmoe bench prepare`, `mhmoe bench evaluate` and `mhmoe bench generate`.
#pragma once

#include <CLI/CLI.hpp>

namespace mhmoe::cli {

void add_bench_use_commands(CLI::App& bench);

}  // namespace mhmoe::cli
