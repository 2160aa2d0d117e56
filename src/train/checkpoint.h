// Checkpoints: global tensors by public name, and a manifest that proves every byte of them. Format and protocol:
// docs/checkpoints.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "train/checkpoint_manifest.h"

namespace mhmoe::train {

// What a checkpoint holds, copied to host memory at one step: the run goes on while it is written.
struct Snapshot {
  Snapshot() = default;
  Snapshot(Snapshot&&) = default;  // a copy would have views into the original
  Snapshot& operator=(Snapshot&&) = default;

  std::string run_id;  // letters, digits, '-' and '_', at most 64
  int64_t step = 0;
  std::string config;  // the resolved configuration, JSON text
  json::Value state;   // whatever the run wants back; scalars and hashes. JSON: what is not finite becomes null.
  // f32, under the public names of parameters; optimizer tensors as moment1.NAME and moment2.NAME. Views into storage.
  std::vector<NamedTensor> model, optimizer;
  std::vector<std::vector<float>> storage;
};

// Writes FOLDER/step-00001200 by the protocol: temporary folder, every file synced, manifest, rename, folder synced,
// FOLDER/latest replaced. Returns the checkpoint's path.
//
// A checkpoint of that step that is whole and holds the same is kept; another one of this run is replaced. Checkpoints
// of later steps, which a run leaves behind when it goes back, are set aside with a warning.
//
// On an error, thrown as AtomicFile throws, what was there is as it was and the new files are gone; only when the
// rename could not be made durable, or `latest` not written, the new checkpoint stays, complete. Error(kCannotCreate)
// if the step's checkpoint is of another run.
std::string write_checkpoint(const std::string& folder, const Snapshot& snapshot);

// One complete checkpoint, opened: its manifest has been checked against its own checksum, every file against its size,
// and there is nothing else in the folder. Tensors are checked when they are read.
class Checkpoint {
 public:
  // Throws Error(kMissingInput), Error(kBadData) naming file and what is wrong, Error(kPermission) for links and
  // special files.
  explicit Checkpoint(const std::string& path);

  const std::string& path() const { return path_; }
  const std::string& run_id() const { return manifest_.run_id; }
  int64_t step() const { return manifest_.step; }
  const std::string& config() const { return manifest_.config; }  // JSON text, as it was given
  const json::Value& state() const { return manifest_.state; }
  const std::string& mhmoe_version() const { return manifest_.mhmoe_version; }
  using TensorEntry = Manifest::Tensor;
  const std::map<std::string, TensorEntry>& tensors() const { return manifest_.tensors; }
  int64_t bytes() const;  // of all its files but the manifest

  // The checkpoint's files of that kind ("model" or "optimizer"): each one's header is what the manifest says, and a
  // tensor that is read from it is checked against its checksum. Throws Error(kBadData) naming file, tensor and byte
  // range, now or then.
  std::vector<SafetensorsReader> open(const std::string& kind) const;
  // All of them in memory.
  std::vector<SafetensorsFile> read(const std::string& kind) const;
  // Reads everything and throws what is wrong: any byte that is not what the manifest says, values that are not finite
  // unless they are allowed.
  void verify(bool allow_nonfinite = false) const;

 private:
  void check_folder() const;
  SafetensorsReader open_file(const std::string& name) const;
  bool is_whole(const SafetensorsReader& file, bool allow_nonfinite) const;

  std::string path_;
  Manifest manifest_;
};

// The steps of which the folder has a checkpoint, whole or not, ascending; unfinished saves are ignored. Empty if there
// is no such folder.
std::vector<int64_t> checkpoint_steps(const std::string& folder);
// FOLDER/step-00001200
std::string checkpoint_path(const std::string& folder, int64_t step);

// What a person may give in place of a checkpoint: whether it is one, whole or not; else the folder that holds them,
// for a run's folder or that folder itself.
bool is_checkpoint_path(const std::string& path);
std::string checkpoints_folder(const std::string& path);

// The newest complete checkpoint of the folder, fully verified; older ones are tried when it is damaged, and a warning
// says what was passed over. Absent if there is no checkpoint at all; if there are some and none is good, throws the
// newest one's error, Error(kBadData) as a rule.
std::optional<Checkpoint> newest_checkpoint(const std::string& folder, bool allow_nonfinite = false);

// The checkpoint that a person means by `path`: a checkpoint, or the newest of a run's folder or of its `checkpoints`.
// Verified. Error(kMissingInput) if there is none.
Checkpoint find_checkpoint(const std::string& path, bool allow_nonfinite = false);

// Deletes what unfinished saves and deletions left, and complete checkpoints older than the newest keep_last (at least
// 1) complete ones, except those whose step is a multiple of keep_every (0: none) and those `in_use`, which are paths.
// A `latest` that names no complete checkpoint is made anew.
void prune_checkpoints(const std::string& folder, int64_t keep_last, int64_t keep_every,
                       const std::vector<std::string>& in_use = {});

}  // namespace mhmoe::train
