// Names and deletions inside a folder of checkpoints.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mhmoe::train {

inline constexpr const char* kManifestFileName = "manifest.json";
inline constexpr const char* kLatestFileName = "latest";
inline constexpr const char* kTrashPrefix = ".trash-";  // of what is being deleted

std::string checkpoint_name(int64_t step);  // step-00001200
// Of the name of a finished save's folder; absent for other names.
std::optional<int64_t> step_of(std::string_view name);
// The last part of a path, whether or not a '/' follows it.
std::string name_of(const std::string& path);

// Names in the folder, in no order. Throws as fail_errno.
std::vector<std::string> list_folder(const std::string& folder);

// Deletes files and folders below `path` and then itself, following no links; goes on after a failure. Returns 0 or the
// first negated errno.
int remove_tree(const std::string& path);

// Renames FOLDER/NAME to FOLDER/PREFIX-NAME, with a number behind it if that is taken. Returns the new name.
std::string rename_aside(const std::string& folder, const std::string& name, const std::string& prefix);

// FOLDER/latest names that checkpoint from now on.
void write_latest(const std::string& folder, const std::string& name);

}  // namespace mhmoe::train
