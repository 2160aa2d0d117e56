#include "data/corpus_files.h"

#include <glob.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "core/file.h"
#include "data/input_stream.h"

namespace mhmoe::data {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKinds = ".jsonl or .txt file, plain or with .gz or .zst";

void add_folder(const std::string& folder, std::vector<std::string>& files) {
  const size_t before = files.size();
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; entry != end; entry.increment(error)) {
    const std::string path = entry->path().string();
    if (corpus_format(path) == CorpusFormat::kNone) continue;
    std::error_code unreadable;
    if (entry->is_regular_file(unreadable)) files.push_back(path);
    if (unreadable) fail_errno(path, "open", unreadable.value());
  }
  if (error) fail_errno(folder, "list all that it holds", error.value());
  if (files.size() == before) fail(ExitCode::kUsage, "{}: holds no {}", folder, kKinds);
  std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
}

// Paths that match, unsorted.
std::vector<std::string> expand(const std::string& pattern) {
  glob_t found{};
  const std::unique_ptr<glob_t, void (*)(glob_t*)> guard(&found, &globfree);
  int error = 0;
  switch (glob(pattern.c_str(), GLOB_NOSORT, nullptr, &found)) {
    case 0:
      return {found.gl_pathv, found.gl_pathv + found.gl_pathc};
    case GLOB_NOMATCH:
      fail(ExitCode::kMissingInput, "{}: nothing matches this pattern", pattern);
    case GLOB_NOSPACE:
      error = ENOMEM;
      break;
    default:
      error = EIO;
  }
  fail_errno(pattern, "expand the pattern", error);
}

void add_matches(const std::string& pattern, std::vector<std::string>& files) {
  std::vector<std::string> matches = expand(pattern);
  std::erase_if(matches, [](const std::string& path) {
    return corpus_format(path) == CorpusFormat::kNone || !fs::is_regular_file(path);
  });
  if (matches.empty()) fail(ExitCode::kUsage, "{}: matches no {}", pattern, kKinds);
  std::sort(matches.begin(), matches.end());
  files.insert(files.end(), matches.begin(), matches.end());
}

}  // namespace

CorpusFormat corpus_format(std::string_view path) {
  const std::string_view name = without_compression(path);
  if (name.ends_with(".jsonl") || (name.ends_with(".json") && name != path)) return CorpusFormat::kJsonLines;
  return name.ends_with(".txt") ? CorpusFormat::kText : CorpusFormat::kNone;
}

std::vector<std::string> find_corpus_files(std::span<const std::string> inputs) {
  std::vector<std::string> files;
  for (const std::string& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (status.type() == fs::file_type::not_found && input.find_first_of("*?[") != std::string::npos) {
      add_matches(input, files);
    } else if (error) {
      fail_errno(input, "open", error.value());
    } else if (fs::is_directory(status)) {
      add_folder(input, files);
    } else if (corpus_format(input) == CorpusFormat::kNone) {
      fail(ExitCode::kUsage, "{}: expected a {}, or a folder or pattern of them", input, kKinds);
    } else {
      files.push_back(input);
    }
  }
  return files;
}

}  // namespace mhmoe::data
