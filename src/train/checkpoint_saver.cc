#include "train/checkpoint_saver.h"

#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <thread>
#include <utility>

#include "core/log.h"

namespace mhmoe::train {

// The thread writes the fields below it; the run reads them once it has joined the thread, `newest` at any time.
struct CheckpointSaver::Work {
  explicit Work(const SaverOptions& saver_options) : options(saver_options) {}

  void write(const Snapshot& snapshot);
  void note_failure(int64_t step, const Error& error);
  void prune();
  void join() {
    if (thread.joinable()) thread.join();
  }
  void throw_if_too_many() const;

  const SaverOptions options;
  std::thread thread;
  int64_t failures = 0;        // in a row
  std::optional<Error> error;  // of the last save
  mutable std::mutex mutex;
  std::string newest;
};

void CheckpointSaver::Work::write(const Snapshot& snapshot) {
  try {
    const std::string path = write_checkpoint(options.folder, snapshot);
    failures = 0;
    error.reset();
    const std::lock_guard lock(mutex);
    newest = path;
  } catch (const Error& failed) {
    return note_failure(snapshot.step, failed);
  } catch (const std::bad_alloc&) {
    return note_failure(snapshot.step, Error(ExitCode::kMemory, "no memory to write it"));
  } catch (const std::exception& failed) {
    return note_failure(snapshot.step, Error(ExitCode::kInternal, failed.what()));
  }
  prune();
}

void CheckpointSaver::Work::note_failure(int64_t step, const Error& failed) {
  ++failures;
  error = failed;
  if (failures >= options.max_failed_saves || failed.code() == ExitCode::kInternal) return;  // thrown, and so said
  log::warning(
      "the checkpoint of step {} is not saved ({} of {} failures in a row that end the run): {}; earlier checkpoints "
      "are as they were, and the next save tries again",
      step, failures, options.max_failed_saves, failed.what());
}

void CheckpointSaver::Work::prune() {
  try {
    prune_checkpoints(options.folder, options.keep_last, options.keep_every, {newest, options.in_use});
  } catch (const std::exception& failed) {
    log::warning("old checkpoints are not deleted: {}", failed.what());
  }
}

void CheckpointSaver::Work::throw_if_too_many() const {
  if (error && error->code() == ExitCode::kInternal) throw Error(*error);
  if (failures < options.max_failed_saves) return;
  fail(ExitCode::kIo, "{} checkpoints in a row could not be saved (checkpoint.max_failed_saves); the last: {}",
       failures, error->what());
}

CheckpointSaver::CheckpointSaver(const SaverOptions& options) : work_(std::make_unique<Work>(options)) {}

CheckpointSaver::~CheckpointSaver() {
  work_->join();
}

void CheckpointSaver::save(Snapshot snapshot) {
  wait();
  if (work_->options.asynchronous) {
    try {
      work_->thread = std::thread([work = work_.get(), moved = std::move(snapshot)] { work->write(moved); });
      return;
    } catch (const std::system_error& no_thread) {
      fail(ExitCode::kMemory, "no thread to save a checkpoint in: {}; checkpoint.asynchronous=false needs none",
           no_thread.what());
    }
  }
  work_->write(snapshot);
  work_->throw_if_too_many();
}

void CheckpointSaver::wait(bool required) {
  work_->join();
  work_->throw_if_too_many();
  if (required && work_->error) throw Error(*work_->error);
}

std::string CheckpointSaver::newest() const {
  const std::lock_guard lock(work_->mutex);
  return work_->newest;
}

}  // namespace mhmoe::train
