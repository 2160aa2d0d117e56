// Validation: cross-entropy of held-out text, every target scored once.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/groups.h"
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
// experts: as nn::Pass.
double score_batch(Context& ctx, Task& task, const RunConfig& config, const HostBatch& batch,
                   std::optional<double> capacity_factor, Communicator* experts);

class Evaluation {
 public:
  // Told after each micro-batch how many sequences are scored, of how many; each counts once a score that it takes.
  using Progress = std::function<void(int64_t done, int64_t total)>;

  // Opens the validation sets; says in the log when a set holds fewer targets than evaluation.tokens.
  Evaluation(const RunConfig& config, const data::Tokenizer& tokenizer);

  std::vector<ValidationScore> run(Context& ctx, Task& task, const Progress& progress = {}) const;
  // The same by all ranks of a job, each with a share of the micro-batches; all get the scores, which are the same bits
  // at any number of ranks. Every rank calls.
  std::vector<ValidationScore> run(Context& ctx, Task& task, const comm::ParallelGroups& groups,
                                   const Progress& progress = {}) const;
  std::vector<std::string> names() const;

 private:
  struct Scoring {
    Context& ctx;
    Task& task;
    const comm::ParallelGroups& groups;
    std::function<void(int64_t)> scored;
  };
  double mean_loss(const Scoring& with, const data::ValidationSet& set, std::optional<double> capacity_factor) const;
  double score(const Scoring& with, const data::ValidationSet& set, std::optional<double> capacity_factor,
               int64_t micro_batch) const;

  const RunConfig& config_;
  std::vector<std::unique_ptr<data::ValidationSet>> sets_;
};

}  // namespace mhmoe::train
