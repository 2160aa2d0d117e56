// The tables that `mhmoe plan` prints.
#pragma once

#include <string>

#include "plan/parity.h"
#include "train/memory_need.h"
#include "train/run_config.h"

namespace mhmoe::plan {

// 1234567890 as "1.235 G", 1234 as "1.234 k".
std::string scaled(double value);
// In KiB, MiB or GiB.
std::string bytes_text(size_t bytes);

// Parameters, active parameters and FLOPs by part. model.vocab_size must be filled in.
std::string describe_model(const train::RunConfig& config);

// Bytes by category, from a sizing pass.
std::string describe_memory(const train::RunConfig& config, const train::MemoryNeed& need, DeviceKind device,
                            DType compute);

// The parity solver's answer. `compare`: also how far the shape's own experts are from the baseline.
std::string describe_match(const nn::ModelConfig& baseline, const nn::ModelConfig& shape, const MatchOptions& options,
                           bool compare);

}  // namespace mhmoe::plan
