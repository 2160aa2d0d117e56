// Saves checkpoints while the run goes on.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "train/checkpoint.h"

namespace mhmoe::train {

struct SaverOptions {
  std::string folder;  // RUN/checkpoints
  int64_t keep_last = 3;
  int64_t keep_every = 0;
  int64_t max_failed_saves = 3;
  bool asynchronous = true;
  std::string in_use;  // the checkpoint the run was resumed from: never deleted; empty if none
};

class CheckpointSaver {
 public:
  explicit CheckpointSaver(const SaverOptions& options);
  ~CheckpointSaver();  // waits; never throws
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  // Waits for the save before, then writes `snapshot`, in a thread if asynchronous, and prunes. A failed save is a
  // warning and leaves the earlier checkpoints as they were; the max_failed_saves-th in a row throws Error(kIo) from
  // here or from wait(). A mistake of the program, Error(kInternal), is thrown at once.
  void save(Snapshot snapshot);
  // Until nothing is being written. Throws the error of the last save if that failed and is `required`.
  void wait(bool required = false);
  // The newest checkpoint that is safe on disk, empty if none of this saver's. From any thread.
  std::string newest() const;

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

}  // namespace mhmoe::train
