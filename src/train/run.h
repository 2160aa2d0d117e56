// A whole training run: data in, run folder out.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "device/backend.h"
#include "train/evaluation.h"
#include "train/run_config.h"
#include "train/run_folder.h"

namespace mhmoe::train {

struct RunOptions {
  StartOptions start;
  std::string dump_folder;  // empty: no dump
  int64_t dump_step = 1;
  Job* job = &single_job();
};

struct RunSummary {
  std::string folder;
  std::string checkpoint;  // the last one
  int64_t tokens = 0;
  double seconds = 0;                       // of training, validation left out
  std::optional<double> tokens_per_second;  // of this process, without its first step
  std::vector<ValidationScore> validation;  // after the last step
};

// model.vocab_size null becomes the tokenizer's size; a size below it throws Error(kConfig).
void resolve_vocab_size(RunConfig& config, const data::Tokenizer& tokenizer);

// Trains up to config.train.steps steps, from the beginning or from where the run in the folder stopped, and leaves a
// run folder (docs/runs.md). No file is created before configuration, data, folder and memory have passed their
// checks. Asked to stop by a signal, it saves and throws Error(kRequeue); refused steps in a row end it with
// Error(kNumeric). Whatever is thrown after the first step is also in the run's status.json. Every rank of the job
// calls, with the same configuration; rank 0 writes the folder, which all must be able to read.
RunSummary run_training(const Backend& backend, RunConfig config, const RunOptions& options);

}  // namespace mhmoe::train
