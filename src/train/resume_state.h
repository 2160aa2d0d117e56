// What a checkpoint holds beside tensors, so that a resumed run continues to the same bytes.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/json.h"
#include "train/checkpoint.h"
#include "train/metrics.h"
#include "train/trainer.h"

namespace mhmoe::train {

// One number that stands for everything a run has done: it begins as a hash of what the run is made from (the
// configuration as far as it shapes the weights, data, tokenizer, compute dtype) and takes in every step's loss,
// gradient norm, learning rate and refusal. Two runs with equal chains at a step have gone the same way to it.
class RunHash {
 public:
  static RunHash begin(const std::string& identity);
  static RunHash of(uint64_t value) { return RunHash(value); }
  void add(const StepResult& result);
  uint64_t value() const { return value_; }

 private:
  explicit RunHash(uint64_t value) : value_(value) {}
  uint64_t value_;
};

// What shapes a run's results beside its configuration: hashes of the training data and the tokenizer, the dtype of
// products.
struct Origin {
  std::string data, tokenizer, compute;
};

struct ResumeState {
  TrainerState trainer;
  uint64_t hash = 0;
  int64_t refused_steps = 0;  // in all
  WindowSums window;
  double training_seconds = 0;
  std::vector<ValidationScore> validation;    // the last
  std::map<std::string, int64_t> file_bytes;  // of the run's growing files at this step
  Origin origin;
  std::string parent;  // branch_name() of the checkpoint that the run branched off from; empty if it did not
  std::string device;
  int64_t threads = 0;
};

// "RUN_ID@STEP"
std::string branch_name(const Checkpoint& checkpoint);

json::Value to_json(const ResumeState& state);
// Throws Error(kBadData) naming the key that is missing or of another kind.
ResumeState read_resume_state(const json::Value& json);

}  // namespace mhmoe::train
