// What `mhmoe checkpoint inspect` and `compare` print.
#pragma once

#include <string>

#include "train/checkpoint.h"

namespace mhmoe::cli {

// Step, run, parameters, the configuration's keys that differ from their defaults, state and tensors.
std::string describe_checkpoint(const train::Checkpoint& checkpoint);

// How far two runs went the same way, by the manifests of the checkpoints that both have: weights are not read. Each
// path is a run's folder, its folder of checkpoints, or one checkpoint. Throws Error(kMissingInput) where there is none
// and as Checkpoint.
std::string compare_checkpoints(const std::string& path_a, const std::string& path_b);

}  // namespace mhmoe::cli
