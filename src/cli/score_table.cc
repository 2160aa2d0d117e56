#include "cli/score_table.h"

#include <algorithm>

namespace mhmoe::cli {

std::string score_table(std::span<const train::ValidationScore> scores) {
  size_t width = std::string_view("validation set").size();
  for (const train::ValidationScore& score : scores) width = std::max(width, score.name.size());
  std::string out = fmt::format("{:<{}}  {:>10}  {:>14}  {:>14}  {:>10}\n", "validation set", width, "tokens",
                                "perplexity", "dropless", "bits/byte");
  for (const train::ValidationScore& score : scores) {
    out += fmt::format("{:<{}}  {:>10}  {:>14.4f}  {:>14.4f}  {:>10.4f}\n", score.name, width, score.targets,
                       score.perplexity(), score.perplexity_dropless(), score.bits_per_byte);
  }
  return out;
}

}  // namespace mhmoe::cli
