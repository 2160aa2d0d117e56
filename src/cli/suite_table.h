// The tables of `mhmoe suite`: what its members will cost, and how they came out.
#pragma once

#include <span>
#include <string>

#include "train/run.h"

namespace mhmoe::cli {

struct SuiteMember {
  train::RunConfig config;  // model.vocab_size filled in
  train::RunSummary summary;
};

// Steps, tokens, parameters and model FLOPs of each member, and their sums.
std::string planned_table(std::span<const train::RunConfig> members);

// Perplexity as trained and bits per byte on each validation set, parameters, FLOPs a token and speed of each member.
std::string result_table(std::span<const SuiteMember> members);

}  // namespace mhmoe::cli
