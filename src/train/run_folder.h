// The folder of one run, OUTPUT_DIR/NAME: whose it is, and where in it a run goes on.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/checkpoint.h"
#include "train/run_config.h"

namespace mhmoe::train {

inline constexpr const char* kConfigFileName = "config.json";
inline constexpr const char* kLogFileName = "log.txt";
inline constexpr const char* kStatusFileName = "status.json";
inline constexpr const char* kCheckpointsFolderName = "checkpoints";

struct StartOptions {
  bool overwrite = false;       // delete a run of that name first
  std::string resume = "auto";  // "auto", "never", or the path of a checkpoint
};

std::string run_folder(const RunConfig& config);

// One line for each key that shapes a run's results and differs: "train.steps: 100 there, 200 here". Names of the run,
// paths (the files' contents are compared by hash), and what only concerns logs, validation and checkpoints may differ.
std::vector<std::string> config_differences(const RunConfig& there, const RunConfig& here);
// The part of the configuration that they compare, as text.
std::string config_identity(const RunConfig& config);

// Throws if a run of this configuration could not be started, or gone on with, in its folder: Error(kCannotCreate) when
// the folder holds something else, a run that may not be touched ("never") or one that is running now, Error(kConfig)
// when it holds a run of another configuration. Creates nothing.
void check_run_folder(const RunConfig& config, const StartOptions& options);

// The folder, created and held by this process until the object goes: a second process is refused.
class RunFolder {
 public:
  // Throws as check_run_folder. With `overwrite`, what an earlier run left under the names a run writes is deleted
  // first; other files stay.
  RunFolder(const RunConfig& config, const StartOptions& options);
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const char* name) const { return path_ + "/" + name; }
  // Holds a run of this configuration already.
  bool has_run() const { return has_run_; }
  // Durably.
  void create_checkpoints_folder() const;
  // Where to go on; absent: at the beginning.
  const std::optional<Checkpoint>& checkpoint() const { return checkpoint_; }

 private:
  void lock();

  std::string path_;
  int lock_ = -1;
  bool has_run_ = false;
  std::optional<Checkpoint> checkpoint_;
};

void write_text_file(const std::string& path, const std::string& text);

}  // namespace mhmoe::train
