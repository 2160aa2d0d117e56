#include "train/run_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>

#include "core/file.h"
#include "core/file_system.h"
#include "core/log.h"
#include "train/config.h"
#include "train/config_schema.h"
#include "train/resume_state.h"
#include "train/status.h"

namespace mhmoe::train {

namespace fs = std::filesystem;

namespace {

constexpr const char* kLockFileName = "lock";
constexpr const char* kAuto = "auto";
constexpr const char* kNever = "never";
// Everything a run writes into its folder.
constexpr std::array kRunNames = {kLogFileName,           kStatusFileName, "metrics.jsonl", "perplexity.csv",
                                  "routing.jsonl",        "tensorboard",   "flight.log",    "heartbeats",
                                  kCheckpointsFolderName, kConfigFileName};
// Keys, or beginnings of keys, that may change while a run goes on.
constexpr std::array<std::string_view, 9> kFree = {
    "name",        "output_dir", "data.train[].path", "data.validation[].path", "data.tokenizer", "evaluation.",
    "checkpoint.", "log.",       "parallel."};

bool is_free(const std::string& path) {
  return std::ranges::any_of(
      kFree, [&](std::string_view key) { return key.back() == '.' ? path.starts_with(key) : path == key; });
}

const ConfigKey& list_of(const ConfigKey& element) {
  const std::string list = element.path.substr(0, element.path.find("[]"));
  return *std::ranges::find(config_keys(), list, &ConfigKey::path);
}

// Every compared key, elements of lists one by one, with its value.
std::vector<std::pair<std::string, std::string>> compared_values(const RunConfig& config) {
  std::vector<std::pair<std::string, std::string>> values;
  for (const ConfigKey& key : config_keys()) {
    if (is_free(key.path)) continue;
    if (key.type == KeyType::kList) {
      values.emplace_back(key.path + " (how many)", std::to_string(key.size(config)));
    } else if (const size_t brackets = key.path.find("[]"); brackets != std::string::npos) {
      for (size_t i = 0; i < list_of(key).size(config); ++i) {
        std::string name = key.path;
        name.insert(brackets + 1, std::to_string(i));
        values.emplace_back(name, json::to_line(key.write(config, i)));
      }
    } else {
      values.emplace_back(key.path, json::to_line(key.write(config, 0)));
    }
  }
  return values;
}

bool holds_run(const std::string& folder) {
  return fs::is_regular_file(fs::path(folder) / kConfigFileName);
}

// What AtomicFile has left of a process that was killed.
bool is_leftover(const fs::path& path) {
  const std::string name = path.filename().string();
  return name.starts_with(std::string(kConfigFileName) + ".tmp-") ||
         name.starts_with(std::string(kStatusFileName) + ".tmp-");
}

std::vector<fs::path> names_in(const std::string& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    paths.push_back(entry->path());
  }
  return paths;
}

// Also when a process was killed before it could write config.json, the first of a run's files.
bool holds_nothing(const std::string& folder) {
  return std::ranges::all_of(
      names_in(folder), [](const fs::path& path) { return path.filename() == kLockFileName || is_leftover(path); });
}

void remove_leftovers(const std::string& folder) {
  std::error_code ignored;  // then they stay, and do no harm
  for (const fs::path& path : names_in(folder)) {
    if (is_leftover(path)) fs::remove(path, ignored);
  }
}

std::string owner_of(const std::string& lock_path) {
  const InputFile file(lock_path);
  std::string owner(std::min<size_t>(file.size(), 200), '\0');
  file.read(owner.data(), owner.size(), 0);
  owner.erase(std::find(owner.begin(), owner.end(), '\n'), owner.end());
  return owner.empty() ? "another process" : owner;
}

[[noreturn]] void fail_locked(const std::string& folder) {
  fail(ExitCode::kCannotCreate,
       "{}: the run in it is going on now, in {}; wait for it, stop it, or give this one another name", folder,
       owner_of(folder + "/" + kLockFileName));
}

void check_not_running(const std::string& folder) {
  const std::string path = folder + "/" + kLockFileName;
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (descriptor < 0) return;
  const bool held = flock(descriptor, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  close(descriptor);
  if (held) fail_locked(folder);
}

void check_same_run(const std::string& where, const RunConfig& there, const RunConfig& here) {
  constexpr size_t kListed = 4;
  const std::vector<std::string> differences = config_differences(there, here);
  if (differences.empty()) return;
  std::string list;
  for (size_t i = 0; i < std::min(differences.size(), kListed); ++i) list += (i > 0 ? "; " : "") + differences[i];
  if (differences.size() > kListed) list += fmt::format("; and {} more", differences.size() - kListed);
  fail(ExitCode::kConfig,
       "{}: belongs to a run of another configuration: {}; give this one another name (--set name=...), or replace the "
       "old one with --overwrite",
       where, list);
}

// config.json last: as long as it is there, the folder is known for a run's.
void remove_run(const std::string& folder) {
  std::error_code error;
  for (const char* name : kRunNames) {
    fs::remove_all(fs::path(folder) / name, error);
    if (error) fail_errno(folder + "/" + name, "delete", error.value());
  }
}

void sync_folder(const fs::path& folder) {
  const int result = file_system().sync_folder(folder.empty() ? "." : folder.c_str());
  if (result < 0) fail_errno(folder.string(), "sync the folder", -result);
}

// OUTPUT_DIR/NAME may be new with both its parts: a checkpoint in it is only as durable as they are.
void sync_folders_above(const fs::path& folder) {
  sync_folder(folder.parent_path());
  sync_folder(folder.parent_path().parent_path());
}

void check_contents(const RunConfig& config, const StartOptions& options) {
  const std::string folder = run_folder(config);
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status)) {
    fail(ExitCode::kCannotCreate, "{}: is a file, and a run's folder is to be there; change name or output_dir",
         folder);
  }
  if (holds_nothing(folder)) return;
  // What may be deleted must be ours beyond doubt: other programs have a config.json too.
  const bool ours = !options.overwrite || fs::exists(fs::path(folder) / kLockFileName);
  if (!holds_run(folder) || !ours) {
    fail(ExitCode::kCannotCreate, "{}: holds files that are no run's; change name or output_dir", folder);
  }
  if (options.overwrite) return;
  if (options.resume == kNever) {
    fail(ExitCode::kCannotCreate,
         "{}: holds a run; go on with it (--resume auto), give this one another name (--set name=...) or output folder "
         "(--output-dir), or replace the old one with --overwrite",
         folder);
  }
  check_same_run(folder + "/" + kConfigFileName, load_config(folder + "/" + kConfigFileName), config);
}

// Of the run that the folder holds, also when the checkpoint asked for is the one it branched off from. Going on from
// any other would leave later steps of the run in place.
std::optional<Checkpoint> own_checkpoint(const std::string& folder, const std::string& resume) {
  const std::string checkpoints = (fs::path(folder) / kCheckpointsFolderName).string();
  std::optional<Checkpoint> newest = newest_checkpoint(checkpoints);
  if (resume == kAuto) return newest;
  std::error_code unknown;  // then they are not the same
  if (newest && fs::equivalent(checkpoints_folder(resume), checkpoints, unknown)) return newest;
  // Its manifest tells which it is; reading all of it as well would take as long as the run's own has taken.
  const bool one = is_checkpoint_path(resume);
  const Checkpoint asked = one ? Checkpoint(resume) : find_checkpoint(resume);
  if (newest && fs::equivalent(newest->path(), asked.path(), unknown)) return newest;
  if (newest && read_resume_state(newest->state()).parent == branch_name(asked)) return newest;
  if (one) asked.verify();  // damage is told first
  fail(ExitCode::kCannotCreate,
       "{}: holds a run already, whose newest checkpoint is {}; to branch off from {}, give the branch a name of its "
       "own (--set name=...)",
       folder, newest ? newest->path() : "none", asked.path());
}

// Of another run, which this one branches off from.
std::optional<Checkpoint> foreign_checkpoint(const RunConfig& config, const std::string& resume) {
  if (resume == kAuto || resume == kNever) return std::nullopt;
  Checkpoint asked = find_checkpoint(resume);
  check_same_run(asked.path(), parse_config(asked.config(), asked.path()), config);
  return asked;
}

}  // namespace

std::string run_folder(const RunConfig& config) {
  return (fs::path(config.output_dir) / config.name).string();
}

std::vector<std::string> config_differences(const RunConfig& there, const RunConfig& here) {
  std::vector<std::string> differences;
  const auto old_values = compared_values(there), new_values = compared_values(here);
  for (const auto& [key, value] : new_values) {
    const auto old = std::ranges::find(old_values, key, &std::pair<std::string, std::string>::first);
    if (old != old_values.end() && old->second == value) continue;
    differences.push_back(
        fmt::format("{}: {} there, {} here", key, old == old_values.end() ? "absent" : old->second, value));
  }
  return differences;
}

std::string config_identity(const RunConfig& config) {
  std::string text;
  for (const auto& [key, value] : compared_values(config)) text += fmt::format("{}={}\n", key, value);
  return text;
}

void check_run_folder(const RunConfig& config, const StartOptions& options) {
  if (options.overwrite && options.resume != kAuto && options.resume != kNever) {
    fail(ExitCode::kUsage, "--overwrite with --resume {}: a run that begins from a checkpoint needs a name of its own",
         options.resume);
  }
  check_not_running(run_folder(config));
  check_contents(config, options);
}

RunFolder::RunFolder(const RunConfig& config, const StartOptions& options) : path_(run_folder(config)) {
  check_run_folder(config, options);
  std::error_code error;
  fs::create_directories(path_, error);
  if (error) fail_errno(path_, "create the run's folder", error.value(), ExitCode::kCannotCreate);
  sync_folders_above(path_);
  lock();
  try {
    check_contents(config, options);  // another process may have been here before the lock was ours
    if (options.overwrite) remove_run(path_);
    remove_leftovers(path_);
    has_run_ = holds_run(path_);
    checkpoint_ = has_run_ ? own_checkpoint(path_, options.resume) : foreign_checkpoint(config, options.resume);
  } catch (...) {
    close(lock_);
    throw;
  }
}

void RunFolder::create_checkpoints_folder() const {
  std::error_code error;
  fs::create_directories(file(kCheckpointsFolderName), error);
  if (error) fail_errno(file(kCheckpointsFolderName), "create", error.value(), ExitCode::kCannotCreate);
  sync_folder(path_);
}

RunFolder::~RunFolder() {
  close(lock_);
}

// The lock goes with the process, however it ends; the file that carries it stays.
void RunFolder::lock() {
  const std::string path = file(kLockFileName);
  lock_ = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (lock_ < 0) fail_errno(path, "create", errno, ExitCode::kCannotCreate);
  const RunStatus self = status_of_this_process();
  const std::string owner = fmt::format("process {} on {}, started {}\n", self.pid, self.host, self.started);
  int error = flock(lock_, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  if (error == 0 && (ftruncate(lock_, 0) != 0 || write(lock_, owner.data(), owner.size()) < 0)) error = errno;
  if (error == 0) return;
  close(lock_);
  if (error == EWOULDBLOCK) fail_locked(path_);
  fail_errno(path, "lock", error, ExitCode::kCannotCreate);
}

void write_text_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace mhmoe::train
