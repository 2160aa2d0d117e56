// Documents out of .jsonl files (one JSON object a line, its string "text" is the document) and .txt files (each is one
// document). Texts are valid UTF-8.
#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace mhmoe::data {

// The .jsonl and .txt files that `inputs` name, in order; folders are searched with all they contain, sorted by path.
// Throws Error(kMissingInput) for what does not exist, Error(kUsage) for a file of another kind or a folder without
// any.
std::vector<std::string> find_corpus_files(std::span<const std::string> inputs);

// Reads file after file, one document at a time.
class CorpusReader {
 public:
  explicit CorpusReader(std::vector<std::string> files);
  ~CorpusReader();

  // False at the end. Throws Error(kBadData) naming file and line. Blank lines of .jsonl files are skipped.
  bool next(std::string& text);

  int64_t bytes_read() const { return bytes_read_; }
  int64_t bytes_total() const { return bytes_total_; }

 private:
  struct JsonParser;
  bool next_line(std::string& text);
  void open(const std::string& path);
  void read_text_file(const std::string& path, std::string& text);

  std::vector<std::string> files_;
  size_t file_ = 0;       // the one that is open, or to be opened next
  std::ifstream stream_;  // open while a .jsonl file is being read
  std::vector<char> buffer_;
  std::string line_;
  int64_t line_number_ = 0;
  int64_t bytes_read_ = 0;
  int64_t bytes_total_ = 0;
  std::unique_ptr<JsonParser> json_;
};

}  // namespace mhmoe::data
