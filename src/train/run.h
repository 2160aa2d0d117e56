// A whole training run: data in, run folder out.
#pragma once

#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "device/backend.h"
#include "train/evaluation.h"
#include "train/run_config.h"

namespace mhmoe::train {

struct RunOptions {
  bool overwrite = false;   // replace a run of that name
  std::string dump_folder;  // empty: no dump
  int64_t dump_step = 1;
};

struct RunSummary {
  std::string folder;
  int64_t tokens = 0;
  double seconds = 0;                       // of training, validation left out
  std::optional<double> tokens_per_second;  // without the first step
  std::vector<ValidationScore> validation;  // after the last step
};

// model.vocab_size null becomes the tokenizer's size; a size below it throws Error(kConfig).
void resolve_vocab_size(RunConfig& config, const data::Tokenizer& tokenizer);

// Trains config.train.steps steps and leaves config.json, log.txt, metrics.jsonl, perplexity.csv and model.safetensors
// in the run's folder. No file is created before configuration, data and memory have passed their checks.
RunSummary run_training(const Backend& backend, RunConfig config, const RunOptions& options);

}  // namespace mhmoe::train
