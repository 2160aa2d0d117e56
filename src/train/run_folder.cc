#include "train/run_folder.h"

#include <filesystem>

#include "core/error.h"
#include "core/file.h"

namespace mhmoe::train {

namespace fs = std::filesystem;

std::string run_folder(const RunConfig& config) {
  return (fs::path(config.output_dir) / config.name).string();
}

void check_run_folder(const std::string& folder, bool overwrite) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (!fs::exists(status)) return;
  if (!fs::is_directory(status))
    fail(ExitCode::kCannotCreate, "{}: is a file, and a run's folder is to be there", folder);
  if (overwrite || fs::is_empty(folder, error)) return;
  fail(ExitCode::kCannotCreate,
       "{}: holds another run; give this one another name (--set name=...) or output folder (--output-dir), or replace "
       "the old one with --overwrite",
       folder);
}

void create_run_folder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail_errno(folder, "create the run's folder", error.value(), ExitCode::kCannotCreate);
  for (const char* name : {kConfigFileName, kLogFileName, kModelFileName, "metrics.jsonl", "perplexity.csv"}) {
    fs::remove(fs::path(folder) / name, error);
  }
}

void write_text_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

}  // namespace mhmoe::train
