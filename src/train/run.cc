#include "train/run.h"

#include "train/config.h"
#include "train/training_run.h"

namespace mhmoe::train {

void resolve_vocab_size(RunConfig& config, const data::Tokenizer& tokenizer) {
  if (config.model.vocab_size == 0) config.model.vocab_size = tokenizer.vocab_size();
  if (config.model.vocab_size < tokenizer.vocab_size()) {
    fail(ExitCode::kConfig, "model.vocab_size is {}, the tokenizer {} has {} ids; use null, or {} or more",
         config.model.vocab_size, config.data.tokenizer, tokenizer.vocab_size(), tokenizer.vocab_size());
  }
}

RunSummary run_training(const Backend& backend, RunConfig config, const RunOptions& options) {
  require_data(config, true);
  if (!options.dump_folder.empty() && options.dump_step > config.train.steps) {
    fail(ExitCode::kUsage, "--dump-step {}: the run has {} steps (train.steps)", options.dump_step, config.train.steps);
  }
  return TrainingRun(backend, std::move(config), options).run();
}

}  // namespace mhmoe::train
