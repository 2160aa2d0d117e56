// Validation: cross-entropy of held-out text, every target scored once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/tokenizer.h"
#include "train/batch.h"
#include "train/run_config.h"
#include "train/task.h"

namespace mhmoe::train {

// "As trained": experts have the training run's capacity and micro-batches its number of sequences (the last one of a
// set may have fewer). "Dropless": no assignment is dropped.
struct ValidationScore {
  std::string name;
  int64_t targets = 0;
  double loss = 0;  // mean nats, as trained
  double loss_dropless = 0;
  double bits_per_byte = 0;  // of the UTF-8 text that the targets stand for, as trained

  double perplexity() const;
  double perplexity_dropless() const;
};

// Sum of the cross-entropies of all sequences of the batch, as one micro-batch.
double score_batch(Context& ctx, Task& task, const nn::ModelConfig& model, const HostBatch& batch,
                   std::optional<double> capacity_factor);

class Evaluation {
 public:
  // Told after each micro-batch how many sequences are scored, of how many; each counts once a score that it takes.
  using Progress = std::function<void(int64_t done, int64_t total)>;

  // Opens the validation sets; says in the log when a set holds fewer targets than evaluation.tokens.
  Evaluation(const RunConfig& config, const data::Tokenizer& tokenizer);

  std::vector<ValidationScore> run(Context& ctx, Task& task, const Progress& progress = {}) const;
  std::vector<std::string> names() const;

 private:
  double mean_loss(Context& ctx, Task& task, const data::ValidationSet& set, std::optional<double> capacity_factor,
                   const std::function<void(int64_t)>& scored) const;

  const RunConfig& config_;
  std::vector<std::unique_ptr<data::ValidationSet>> sets_;
};

}  // namespace mhmoe::train
