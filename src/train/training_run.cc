// A run's loop over its steps.
#include "train/training_run.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <new>

#include "core/finite.h"
#include "core/log.h"
#include "core/parallel_for.h"
#include "nn/parameter_file.h"
#include "train/config.h"
#include "train/global_state.h"

namespace mhmoe::train {
namespace {

std::vector<float> download(Context& ctx, const Tensor& vector) {
  std::vector<float> values(static_cast<size_t>(vector.count()));
  ctx.download(values.data(), vector);
  return values;
}

void append(std::vector<NamedTensor>& tensors, std::vector<NamedTensor> more) {
  tensors.insert(tensors.end(), more.begin(), more.end());
}

}  // namespace

RunSummary TrainingRun::run() {
  try {
    write_status(RunState::kRunning);
    while (trainer_.steps_done() < config_.train.steps) step();
    progress_.clear();
    if (leader_) saver_->wait(true);
    if (leader_ && loader_.bad_blocks() > 0)
      log::warning("{} damaged blocks of training text were skipped", loader_.bad_blocks());
  } catch (const std::exception& error) {
    progress_.clear();
    fail_status(error);
    throw;
  }
  end(RunState::kFinished, ExitCode::kOk, "");
  job_.gather("done");  // no rank leaves before all is written
  return summary();
}

void TrainingRun::step() {
  const int64_t number = trainer_.steps_done() + 1;
  try {
    step(number);
  } catch (const Error& error) {  // layers, which say where, know no steps
    if (error.code() == ExitCode::kCorruption) fail(error.code(), "step {}: {}", number, error.what());
    throw;
  }
}

void TrainingRun::step(int64_t number) {
  const Stopwatch watch;
  prefetch_.read((number - 1) * trainer_.batch_sequences() + trainer_.first_sequence(), batch_.tokens, batch_.targets);
  observation_.begin(number);
  const StepResult result = trainer_.step(batch_);
  const std::optional<RoutingRecord> routing = observation_.end(number);
  const double seconds = watch.seconds();
  clock_.add_step(seconds);
  hash_.add(result);
  window_.add(result, config_.train.batch_tokens, seconds, !clock_.in_first_step());
  if (result.refused()) refuse(result);
  report(number, routing);
  if (is_saved_step(number)) save();
  if (leader_) progress_.draw(number, config_.train.steps, eta());
  if (number < config_.train.steps) stop_if_asked();
}

void TrainingRun::refuse(const StepResult& result) {
  ++refused_steps_;
  const int64_t in_a_row = trainer_.refused_in_a_row();
  progress_.clear();
  std::string bad_tensor, reason;
  if (result.refusal == Refusal::kNotFinite) {
    bad_tensor = trainer_.first_not_finite(batch_);
    reason = "not finite" + (bad_tensor.empty() ? "" : ", first in " + bad_tensor);
  } else {
    reason = "a spike by train.spike_guard";
  }
  // abs: a NaN's sign says nothing.
  log::warning("step {}: loss {} and gradient norm {}: {}; this step changed no weight", result.step,
               std::abs(result.loss), std::abs(result.gradient_norm), reason);
  if (leader_) files_->append_refusal(result, bad_tensor, in_a_row);
  if (in_a_row < config_.train.max_refused_steps) return;
  fail(ExitCode::kNumeric,
       "step {}: {} steps in a row were refused (train.max_refused_steps), the last because its loss or gradient was "
       "{}; lower train.learning_rate.peak, lengthen the warm-up, or look at the step with --dump",
       result.step, in_a_row, reason);
}

void TrainingRun::report(int64_t step, const std::optional<RoutingRecord>& routing) {
  if (leader_ && routing) files_->append_routing(step, *routing);
  if (!is_logged_step(step) && !is_validation_step(step)) return;
  Record record{.step = step,
                .tokens = tokens(step),
                .flops = flops_per_token_ * static_cast<double>(tokens(step)),
                .seconds = clock_.training_seconds(),
                .refused_steps = refused_steps_,
                .run_hash = hash_.value(),
                .train = {},
                .validation = {}};
  progress_.clear();
  if (is_logged_step(step)) {
    record.train = window_.take();
    log::info("{}", train_line(record, config_.train.steps, has_moe_, eta()));
    status_.loss = record.train->loss;
    status_.tokens_per_second = record.train->tokens_per_second;
  }
  if (is_validation_step(step)) validate(record);
  if (!leader_) return;
  files_->append(record);
  write_status(RunState::kRunning);
}

void TrainingRun::validate(Record& record) {
  const Stopwatch watch;
  validation_ = evaluation_.run(*ctx_, trainer_.task(), groups_);
  record.validation = validation_;
  for (const ValidationScore& score : validation_) {
    log::info("{}", validation_line(record.step, config_.train.steps, score));
  }
  clock_.add_validation(watch.seconds());
}

// The records first: what a checkpoint says of their sizes must be on the disk when it is.
void TrainingRun::save() {
  if (leader_) {
    files_->sync();
    saver_->wait();  // one snapshot in memory at a time
  }
  Snapshot taken = snapshot();
  if (!leader_) return;
  for (const auto* tensors : {&taken.model, &taken.optimizer}) {
    for (const NamedTensor& tensor : *tensors) check_finite(tensor);
  }
  saver_->save(std::move(taken));
}

// A finite gradient can still lead to a weight that is not: such a state never replaces a good checkpoint.
void TrainingRun::check_finite(const NamedTensor& tensor) const {
  if (all_finite(tensor.tensor)) return;
  fail(ExitCode::kNumeric,
       "step {}: {} holds values that are not finite, though loss and gradient were: nothing is saved, earlier "
       "checkpoints are good; lower train.learning_rate.peak or raise train.optimizer.eps",
       trainer_.steps_done(), tensor.name);
}

// Every rank gives what it owns; the leader gets the whole.
Snapshot TrainingRun::snapshot() {
  const nn::ParameterStore& parameters = trainer_.task().parameters();
  const Optimizer& optimizer = trainer_.optimizer();
  Snapshot snapshot;
  const auto gather = [&](const std::vector<float>& owned, const char* prefix) {
    snapshot.storage.push_back(gather_global(job_, parameters, owned));
    if (!leader_) return std::vector<NamedTensor>();
    return nn::name_parts(parameters, snapshot.storage.back().data(), prefix);
  };
  snapshot.model = gather(download_masters(*ctx_, parameters), "");
  append(snapshot.optimizer, gather(download(*ctx_, optimizer.moment1()), "moment1."));
  append(snapshot.optimizer, gather(download(*ctx_, optimizer.moment2()), "moment2."));
  if (!leader_) return snapshot;
  snapshot.run_id = run_id_;
  snapshot.step = trainer_.steps_done();
  snapshot.config = resolved_config(config_);
  snapshot.state = to_json(resume_state());
  return snapshot;
}

ResumeState TrainingRun::resume_state() const {
  return {.trainer = trainer_.state(),
          .hash = hash_.value(),
          .refused_steps = refused_steps_,
          .window = window_.sums(),
          .training_seconds = clock_.training_seconds(),
          .validation = validation_,
          .file_bytes = files_->bytes(),
          .origin = origin(),
          .parent = parent_,
          .device = ctx_->name(),
          .threads = thread_count()};
}

// A signal that any rank was given, so that all stop after the same step.
int TrainingRun::agreed_signal() const {
  std::array<int64_t, 1> signal = {StopSignals::received()};
  job_.maximum(signal);
  return static_cast<int>(signal[0]);
}

void TrainingRun::stop_if_asked() {
  const int signal = agreed_signal();
  if (signal == 0) return;
  const int64_t step = trainer_.steps_done();
  progress_.clear();
  if (!is_saved_step(step)) save();
  if (leader_) saver_->wait(true);
  job_.gather("saved");  // no rank leaves before all is written
  fail(ExitCode::kRequeue, "{}: stopped by {} after step {} of {}, saved; the same command{} goes on from there",
       run_folder(config_), signal_name(signal), step, config_.train.steps, overwrite_ ? " without --overwrite" : "");
}

void TrainingRun::write_status(RunState state) {
  if (!leader_) return;
  status_.state = state;
  status_.step = trainer_.steps_done();
  status_.steps = config_.train.steps;
  status_.tokens = tokens(trainer_.steps_done());
  status_.validation = validation_;
  status_.eta_seconds = eta();
  if (const std::string newest = saver_->newest(); !newest.empty()) status_.checkpoint = newest;
  train::write_status(folder_->file(kStatusFileName), status_);
}

void TrainingRun::fail_status(const std::exception& error) {
  const auto* ours = dynamic_cast<const Error*>(&error);
  const ExitCode code = ours != nullptr                                          ? ours->code()
                        : dynamic_cast<const std::bad_alloc*>(&error) != nullptr ? ExitCode::kMemory
                                                                                 : ExitCode::kInternal;
  try {
    end(code == ExitCode::kRequeue ? RunState::kStopped : RunState::kFailed, code, error.what());
  } catch (const std::exception& second) {  // the first is the one to report
    log::warning("{}", second.what());
  }
}

void TrainingRun::end(RunState state, ExitCode code, const std::string& message) {
  status_.exit_code = static_cast<int>(code);
  status_.message = message;
  write_status(state);
}

RunSummary TrainingRun::summary() const {
  RunSummary summary{.folder = run_folder(config_),
                     .checkpoint = status_.checkpoint,
                     .tokens = tokens(config_.train.steps),
                     .seconds = clock_.training_seconds(),
                     .tokens_per_second = {},
                     .validation = validation_};
  if (const auto seconds = clock_.seconds_a_step()) {
    summary.tokens_per_second = static_cast<double>(config_.train.batch_tokens) / *seconds;
  }
  return summary;
}

}  // namespace mhmoe::train
