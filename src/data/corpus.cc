#include "data/corpus.h"

#include <simdjson.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "core/file.h"

namespace mhmoe::data {
namespace {

namespace fs = std::filesystem;

constexpr size_t kReadBuffer = size_t{1} << 20;

bool is_corpus_file(const fs::path& path) {
  return path.extension() == ".jsonl" || path.extension() == ".txt";
}

void add_folder(const std::string& folder, std::vector<std::string>& files) {
  const size_t before = files.size();
  std::error_code error;
  for (fs::recursive_directory_iterator entry(folder, error), end; entry != end; entry.increment(error)) {
    if (!is_corpus_file(entry->path())) continue;
    const std::string path = entry->path().string();
    std::error_code unreadable;
    if (entry->is_regular_file(unreadable)) files.push_back(path);
    if (unreadable) fail_errno(path, "open", unreadable.value());
  }
  if (error) fail_errno(folder, "list all that it holds", error.value());
  if (files.size() == before) fail(ExitCode::kUsage, "{}: holds no .jsonl or .txt file", folder);
  std::sort(files.begin() + static_cast<std::ptrdiff_t>(before), files.end());
}

int64_t line_of_first_bad_byte(const std::string& text) {
  int64_t number = 1;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1, ++number) {
    end = std::min(text.find('\n', begin), text.size());
    if (!simdjson::validate_utf8(text.data() + begin, end - begin)) break;
  }
  return number;
}

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r") == std::string::npos;
}

}  // namespace

struct CorpusReader::JsonParser {
  simdjson::dom::parser parser;
};

std::vector<std::string> find_corpus_files(std::span<const std::string> inputs) {
  std::vector<std::string> files;
  for (const std::string& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (error) fail_errno(input, "open", error.value());
    if (fs::is_directory(status)) {
      add_folder(input, files);
    } else if (!is_corpus_file(input)) {
      fail(ExitCode::kUsage, "{}: expected a .jsonl or .txt file, or a folder of them", input);
    } else {
      files.push_back(input);
    }
  }
  return files;
}

CorpusReader::CorpusReader(std::vector<std::string> files)
    : files_(std::move(files)), buffer_(kReadBuffer), json_(std::make_unique<JsonParser>()) {
  for (const std::string& file : files_) bytes_total_ += static_cast<int64_t>(InputFile(file).size());
}

CorpusReader::~CorpusReader() = default;

void CorpusReader::open(const std::string& path) {
  stream_ = std::ifstream();
  stream_.rdbuf()->pubsetbuf(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  stream_.open(path, std::ios::binary);
  if (!stream_) fail_errno(path, "open", errno);
  line_number_ = 0;
}

bool CorpusReader::next(std::string& text) {
  for (; file_ < files_.size(); ++file_) {
    const std::string& path = files_[file_];
    if (fs::path(path).extension() == ".txt") {
      read_text_file(path, text);
      ++file_;
      return true;
    }
    if (!stream_.is_open()) open(path);
    if (next_line(text)) return true;
    stream_.close();
  }
  return false;
}

void CorpusReader::read_text_file(const std::string& path, std::string& text) {
  open(path);
  text.assign(std::istreambuf_iterator<char>(stream_), {});
  if (stream_.bad()) fail_errno(path, "read", errno);
  stream_.close();
  bytes_read_ += static_cast<int64_t>(text.size());
  if (!simdjson::validate_utf8(text)) {
    fail(ExitCode::kBadData, "{}:{}: not valid UTF-8; convert the file first", path, line_of_first_bad_byte(text));
  }
}

bool CorpusReader::next_line(std::string& text) {
  const std::string& path = files_[file_];
  do {
    if (!std::getline(stream_, line_)) {
      if (stream_.bad()) fail_errno(fmt::format("{}:{}", path, line_number_ + 1), "read", errno);
      return false;
    }
    ++line_number_;
    bytes_read_ += static_cast<int64_t>(line_.size()) + 1;
  } while (is_blank(line_));

  line_.reserve(line_.size() + simdjson::SIMDJSON_PADDING);  // spares the parser a copy
  simdjson::dom::element json;
  if (const auto error = json_->parser.parse(line_).get(json)) {
    fail(ExitCode::kBadData, "{}:{}: not a JSON value on one line: {}", path, line_number_,
         simdjson::error_message(error));
  }
  std::string_view found;
  if (json["text"].get(found)) {
    fail(ExitCode::kBadData, "{}:{}: expected a JSON object with a string \"text\"", path, line_number_);
  }
  text = found;
  return true;
}

}  // namespace mhmoe::data
