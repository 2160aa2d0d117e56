// Checkpoints: global tensors by public name, and a manifest that proves every byte of them. Format and protocol:
// docs/checkpoints.md.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/safetensors.h"

namespace mhmoe::train {

// What a checkpoint holds, copied to host memory at one step: the run goes on while it is written.
struct Snapshot {
  std::string run_id;
  int64_t step = 0;
  std::string config;  // the resolved configuration, JSON text
  json::Value state;   // whatever the run wants back; scalars and hashes
  // f32, under the public names of parameters; optimizer tensors as moment1.NAME and moment2.NAME. Views into storage.
  std::vector<NamedTensor> model, optimizer;
  std::vector<std::vector<float>> storage;
};

// Writes FOLDER/step-00001200 by the protocol: temporary folder, every file synced, manifest, rename, folder synced,
// FOLDER/latest replaced. On an error, thrown as AtomicFile throws, nothing is left but what was there. Returns the
// checkpoint's path.
std::string write_checkpoint(const std::string& folder, const Snapshot& snapshot);

// One complete checkpoint, opened: its manifest has been checked against its own checksum, every file against its size.
// Tensors are checked when they are read.
class Checkpoint {
 public:
  // Throws Error(kMissingInput), Error(kBadData) naming file, tensor or byte range, Error(kPermission) for links and
  // special files.
  explicit Checkpoint(const std::string& path);

  const std::string& path() const { return path_; }
  const std::string& run_id() const { return run_id_; }
  int64_t step() const { return step_; }
  const std::string& config() const { return config_; }
  const json::Value& state() const { return state_; }
  struct TensorEntry {
    std::string file;
    std::vector<int64_t> shape;
    uint64_t xxh3 = 0;
  };
  const std::map<std::string, TensorEntry>& tensors() const { return tensors_; }

  // The checkpoint's files of that kind ("model" or "optimizer"), every tensor checked against its checksum; non-finite
  // values are refused unless allowed.
  std::vector<SafetensorsFile> read(const std::string& kind, bool allow_nonfinite = false) const;
  // Reads everything and throws what is wrong.
  void verify() const;

 private:
  void parse_manifest(const json::Value& manifest);

  std::string path_, run_id_, config_;
  int64_t step_ = 0;
  json::Value state_;
  std::map<std::string, TensorEntry> tensors_;
  std::map<std::string, int64_t> files_;  // name and bytes
};

// The newest complete checkpoint of the folder, fully verified; older ones are tried when it is damaged, and a warning
// says what was passed over. Folders of unfinished saves are ignored. Absent if there is no checkpoint at all; throws
// Error(kBadData) if there are some and none is good.
std::optional<Checkpoint> newest_checkpoint(const std::string& folder);

// Deletes what unfinished saves and deletions left, and the oldest checkpoints beyond the newest keep_last (at least
// 1), except those whose step is a multiple of keep_every (0: none) and `in_use`.
void prune_checkpoints(const std::string& folder, int64_t keep_last, int64_t keep_every, const std::string& in_use);

}  // namespace mhmoe::train
