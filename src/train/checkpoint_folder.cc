#include "train/checkpoint_folder.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <set>

#include "core/file.h"
#include "core/file_system.h"
#include "core/log.h"
#include "train/checkpoint.h"

namespace mhmoe::train {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kStepPrefix = "step-";

// What a save or a deletion that was cut short leaves.
bool is_leftover(std::string_view name) {
  return name.starts_with(kTrashPrefix) || name.starts_with(std::string(kLatestFileName) + ".tmp-") ||
         (name.starts_with(kStepPrefix) && name.find(".tmp-") != std::string_view::npos);
}

bool is_complete(const std::string& path) {
  try {
    const Checkpoint checkpoint(path);
    return true;
  } catch (const Error& error) {
    if (error.code() == ExitCode::kMemory) throw;
    return false;
  }
}

std::string first_line(const std::string& path) {
  try {
    const InputFile file(path);
    std::string text(std::min<size_t>(file.size(), 100), '\0');
    file.read(text.data(), text.size(), 0);
    return text.ends_with('\n') ? text.substr(0, text.size() - 1) : "";
  } catch (const Error&) {
    return "";
  }
}

// Makes `latest` anew when it is lost, torn or names no complete checkpoint.
void repair_latest(const std::string& folder, const std::vector<int64_t>& complete) {
  if (complete.empty()) return;
  const std::string found = first_line(folder + "/" + kLatestFileName);
  const std::optional<int64_t> step = step_of(found);
  if (step && std::ranges::find(complete, *step) != complete.end()) return;
  if (step && is_complete(checkpoint_path(folder, *step))) return;
  write_latest(folder, checkpoint_name(complete.front()));
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  return fmt::format("{}{:08}", kStepPrefix, step);
}

std::optional<int64_t> step_of(std::string_view name) {
  if (!name.starts_with(kStepPrefix)) return std::nullopt;
  int64_t step = 0;
  const auto [end, error] = std::from_chars(name.data() + kStepPrefix.size(), name.data() + name.size(), step);
  if (error != std::errc() || checkpoint_name(step) != name) return std::nullopt;
  return step;
}

std::string name_of(const std::string& path) {
  const fs::path normal = fs::path(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

std::string checkpoint_path(const std::string& folder, int64_t step) {
  return folder + "/" + checkpoint_name(step);
}

bool is_checkpoint_path(const std::string& path) {
  std::error_code error;
  return fs::exists(path + "/" + kManifestFileName, error) || (fs::exists(path, error) && step_of(name_of(path)));
}

std::string checkpoints_folder(const std::string& path) {
  std::error_code error;
  const std::string inner = path + "/checkpoints";
  return fs::is_directory(inner, error) ? inner : path;
}

std::vector<std::string> list_folder(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) names.push_back(at->path().filename().string());
  if (error) fail_errno(folder, "list the folder", error.value());
  return names;
}

std::vector<int64_t> checkpoint_steps(const std::string& folder) {
  std::error_code error;
  if (!fs::exists(folder, error) && !error) return {};
  std::vector<int64_t> steps;
  for (const std::string& name : list_folder(folder)) {
    if (const auto step = step_of(name)) steps.push_back(*step);
  }
  std::ranges::sort(steps);
  return steps;
}

int remove_tree(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(path, error))) return file_system().remove_file(path.c_str());
  int first = 0;
  const auto note = [&](int result) {
    if (first == 0 && result < 0) first = result;
  };
  std::vector<std::string> names;
  for (fs::directory_iterator at(path, error); !error && at != fs::directory_iterator(); at.increment(error)) {
    names.push_back(at->path().filename().string());
  }
  note(-error.value());
  for (const std::string& name : names) note(remove_tree(path + "/" + name));
  note(file_system().remove_folder(path.c_str()));
  return first;
}

std::string rename_aside(const std::string& folder, const std::string& name, const std::string& prefix) {
  const std::string from = folder + "/" + name;
  for (int number = 1;; ++number) {
    const std::string aside = number == 1 ? prefix + name : fmt::format("{}{}-{}", prefix, name, number);
    const std::string to = folder + "/" + aside;
    std::error_code error;
    if (fs::exists(fs::symlink_status(to, error))) continue;
    const int result = file_system().rename(from.c_str(), to.c_str());
    if (result < 0) fail_errno(from, "rename", -result);
    return aside;
  }
}

void write_latest(const std::string& folder, const std::string& name) {
  AtomicFile file(folder + "/" + kLatestFileName);
  file.write(name + "\n");
  file.commit();
}

void prune_checkpoints(const std::string& folder, int64_t keep_last, int64_t keep_every,
                       const std::vector<std::string>& in_use) {
  MHMOE_CHECK(keep_last >= 1 && keep_every >= 0, "prune_checkpoints: keep_last {}, keep_every {}", keep_last,
              keep_every);
  std::set<std::string> kept;
  for (const std::string& path : in_use) kept.insert(name_of(path));
  std::vector<int64_t> steps = checkpoint_steps(folder), newest;
  if (steps.empty() && !fs::exists(folder)) return;

  // Renamed first, and that synced: a deletion cut short must not look like a damaged checkpoint.
  bool renamed = false;
  for (size_t i = steps.size(); i-- > 0;) {
    const int64_t step = steps[i];
    const std::string name = checkpoint_name(step);
    if (std::ssize(newest) < keep_last) {
      if (is_complete(folder + "/" + name)) newest.push_back(step);
      continue;
    }
    if ((keep_every > 0 && step % keep_every == 0) || kept.contains(name)) continue;
    rename_aside(folder, name, kTrashPrefix);
    renamed = true;
  }
  if (renamed) {
    const int result = file_system().sync_folder(folder.c_str());
    if (result < 0) fail_errno(folder, "sync the folder", -result);
  }
  for (const std::string& name : list_folder(folder)) {
    if (!is_leftover(name)) continue;
    const int result = remove_tree(folder + "/" + name);
    if (result < 0) fail_errno(folder + "/" + name, "delete", -result);
  }
  repair_latest(folder, newest);
}

}  // namespace mhmoe::train
