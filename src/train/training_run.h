// The parts of one run and the loop over its steps. Private to run.cc.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "comm/groups.h"
#include "data/loader.h"
#include "data/prefetch.h"
#include "data/tokenizer.h"
#include "train/checkpoint_saver.h"
#include "train/console.h"
#include "train/group_options.h"
#include "train/resume_state.h"
#include "train/run.h"
#include "train/run_clock.h"
#include "train/run_files.h"
#include "train/status.h"
#include "train/step_observation.h"
#include "train/stop_signals.h"

namespace mhmoe::train {

class TrainingRun {
 public:
  // Makes its members in the order in which things are checked: data, folder, memory. The folder is created last, and
  // what its checkpoint holds is restored.
  TrainingRun(const Backend& backend, RunConfig config, const RunOptions& options);
  RunSummary run();

 private:
  // training_start.cc
  std::unique_ptr<Context> create_context(const Backend& backend, const RunOptions& options) const;
  Origin origin() const;
  RunHash first_hash() const;
  comm::Layout layout() const;
  comm::GroupOptions group_options() const { return train::group_options(config_, compute_, layout(), nodes_); }
  void compare_ranks() const;
  void open_checkpoint();
  void check_origin(const std::string& checkpoint, const Origin& there) const;
  void open_folder(const RunOptions& options);
  void open_files(const std::map<std::string, int64_t>& bytes);
  void restore(const Checkpoint& checkpoint);
  void continue_records(const Checkpoint& checkpoint, const ResumeState& state);
  void restore_tensors(const Checkpoint& checkpoint);
  void log_start();

  // training_run.cc
  void step();
  void step(int64_t number);
  void refuse(const StepResult& result);
  void report(int64_t step, const std::optional<RoutingRecord>& routing);
  void validate(Record& record);
  void save();
  void check_finite(const NamedTensor& tensor) const;
  Snapshot snapshot();
  ResumeState resume_state() const;
  void stop_if_asked();
  int agreed_signal() const;
  void write_status(RunState state);
  void fail_status(const std::exception& error);
  void end(RunState state, ExitCode code, const std::string& message);
  RunSummary summary() const;

  bool is_validation_step(int64_t step) const {
    return step % config_.evaluation.every_steps == 0 || step == config_.train.steps;
  }
  bool is_logged_step(int64_t step) const {
    return step == 1 || step % config_.log.every_steps == 0 || step == config_.train.steps;
  }
  bool is_saved_step(int64_t step) const {
    const int64_t every = config_.checkpoint.every_steps;
    return step == config_.train.steps || (every > 0 && step % every == 0);
  }
  std::optional<double> eta() const { return clock_.eta_seconds(trainer_.steps_done()); }
  int64_t tokens(int64_t steps) const { return steps * config_.train.batch_tokens; }

  Job& job_;
  StopSignals signals_;
  const bool leader_;  // writes the folder and speaks
  bool overwrite_;
  bool has_moe_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  RunConfig config_;
  data::BatchLoader loader_;
  data::PrefetchingLoader prefetch_;
  Evaluation evaluation_;
  DType compute_;
  std::vector<int> nodes_;  // of every rank
  std::unique_ptr<Context> ctx_;
  comm::ParallelGroups groups_;
  Trainer trainer_;
  double flops_per_token_;
  StepWindow window_;
  StepObservation observation_;
  RunClock clock_;
  HostBatch batch_;
  RunHash hash_;
  std::string run_id_, parent_;
  int64_t refused_steps_ = 0;
  std::vector<ValidationScore> validation_;  // the last
  std::optional<RunFolder> folder_;          // these three on the leader alone
  std::optional<RunFiles> files_;
  std::optional<CheckpointSaver> saver_;
  RunStatus status_;
  ProgressBar progress_;
};

}  // namespace mhmoe::train
