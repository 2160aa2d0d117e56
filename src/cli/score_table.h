// The table of validation scores that ends `train` and is what `evaluate` prints.
#pragma once

#include <span>
#include <string>

#include "train/evaluation.h"

namespace mhmoe::cli {

// One line a validation set, with a heading; perplexities with four decimals.
std::string score_table(std::span<const train::ValidationScore> scores);

}  // namespace mhmoe::cli
