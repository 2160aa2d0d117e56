// Documents out of corpus files: one a line (.jsonl) or one a file (.txt). Reading a document's bytes and taking its
// text out of them are two steps, so that many threads can share the second.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/corpus_files.h"
#include "data/input_stream.h"

namespace mhmoe::data {

// A document, and a line of a .jsonl file, may have this many bytes: memory is bounded by it.
inline constexpr int64_t kMaxDocumentBytes = int64_t{128} << 20;

// A document as it stands in its file.
struct RawDocument {
  std::string bytes;
  CorpusFormat format = CorpusFormat::kNone;
  size_t file = 0;   // which of the reader's
  int64_t line = 1;  // where it begins
};

// Between two documents.
struct CorpusPosition {
  size_t file = 0;
  int64_t offset = 0;  // in the decompressed file
  int64_t lines = 0;   // before it
};

// Reads file after file, one document at a time.
class CorpusReader {
 public:
  explicit CorpusReader(std::vector<std::string> files, CorpusPosition start = {});

  // False at the end; blank lines of .jsonl files are skipped. Throws as InputStream and, naming file and line,
  // Error(kBadData) for a document of more than kMaxDocumentBytes.
  bool next(RawDocument& document);

  // Behind the last document that next() gave.
  CorpusPosition position() const { return position_; }
  const std::vector<std::string>& files() const { return files_; }
  // Of the files as they are, compressed or not.
  int64_t bytes_read() const { return whole_files_ + (stream_ ? stream_->file_offset() - unused_file_bytes() : 0); }
  int64_t bytes_total() const { return bytes_total_; }

 private:
  void open();
  void close();
  bool next_line(std::string& line);
  void read_whole(std::string& text);
  bool fill();
  void take(std::string& bytes, size_t count);
  int64_t unused_file_bytes() const;

  std::vector<std::string> files_;
  std::vector<int64_t> sizes_;
  CorpusPosition position_;
  std::unique_ptr<InputStream> stream_;  // of file position_.file, or absent before it
  std::vector<char> buffer_;
  size_t begin_ = 0, end_ = 0;  // what is left in the buffer
  int64_t whole_files_ = 0;     // bytes of those before position_.file
  int64_t bytes_total_ = 0;
};

// Takes the text out of documents. Not for two threads at once.
class DocumentParser {
 public:
  // `field`: the key of the text in JSON objects; empty: the first of "text", "raw_content" and "content" that is
  // there.
  explicit DocumentParser(std::string field = {});
  ~DocumentParser();
  DocumentParser(DocumentParser&&) noexcept;

  // The text, valid UTF-8, until the next call or a change of `document`. Throws Error(kBadData) naming file and line.
  std::string_view parse(RawDocument& document, const std::string& path);

 private:
  struct Json;
  std::string_view parse_json(RawDocument& document, const std::string& path);

  std::string field_;
  std::unique_ptr<Json> json_;
};

}  // namespace mhmoe::data
