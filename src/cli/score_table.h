// Validation scores as `train` and `evaluate` print them.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "train/evaluation.h"

namespace mhmoe::cli {

struct ModelScores {
  std::string model;   // as it was named on the command line
  std::string source;  // the file or checkpoint that was scored
  std::optional<int64_t> step;
  std::vector<train::ValidationScore> sets;
};

// One line a validation set, with a heading; perplexities with four decimals.
std::string score_table(std::span<const train::ValidationScore> scores);
// The same of several models, whose names are the first column. Of one model: as above.
std::string score_table(std::span<const ModelScores> models);
// One JSON object, in one line: {"models": [{"model": .., "validation": [{"name": .., "perplexity": ..}, ..]}, ..]}.
std::string score_json(std::span<const ModelScores> models);

}  // namespace mhmoe::cli
