#include "data/corpus.h"

#include <algorithm>
#include <cstring>

#include "core/file.h"

namespace mhmoe::data {
namespace {

constexpr size_t kReadBuffer = size_t{1} << 20;

bool is_blank(const std::string& line) {
  return line.find_first_not_of(" \t\r") == std::string::npos;
}

}  // namespace

CorpusReader::CorpusReader(std::vector<std::string> files, CorpusPosition start)
    : files_(std::move(files)), position_(start), buffer_(kReadBuffer) {
  for (const std::string& file : files_) {
    sizes_.push_back(static_cast<int64_t>(InputFile(file).size()));
    bytes_total_ += sizes_.back();
    if (sizes_.size() <= start.file) whole_files_ += sizes_.back();
  }
  if (start.offset == 0) return;
  open();
  stream_->skip(start.offset);
}

void CorpusReader::open() {
  stream_ = open_input(files_[position_.file]);
  begin_ = end_ = 0;
}

void CorpusReader::close() {
  stream_.reset();
  whole_files_ += sizes_[position_.file];
  position_ = {.file = position_.file + 1, .offset = 0, .lines = 0};
}

// Plain files are counted to the byte, compressed ones by what the decompressor has taken.
int64_t CorpusReader::unused_file_bytes() const {
  const std::string& path = files_[position_.file];
  return without_compression(path) == path ? static_cast<int64_t>(end_ - begin_) : 0;
}

bool CorpusReader::next(RawDocument& document) {
  for (; position_.file < files_.size(); close()) {
    const std::string& path = files_[position_.file];
    document.file = position_.file;
    document.format = corpus_format(path);
    if (!stream_) open();
    if (document.format == CorpusFormat::kText) {
      document.line = 1;
      read_whole(document.bytes);
      close();
      return true;
    }
    while (next_line(document.bytes)) {
      document.line = position_.lines;
      if (!is_blank(document.bytes)) return true;
    }
  }
  return false;
}

bool CorpusReader::fill() {
  begin_ = 0;
  end_ = stream_->read(buffer_.data(), buffer_.size());
  return end_ > 0;
}

// Moves the next bytes from the buffer.
void CorpusReader::take(std::string& bytes, size_t count) {
  if (static_cast<int64_t>(bytes.size() + count) > kMaxDocumentBytes) {
    fail(ExitCode::kBadData, "{}:{}: a document of more than {} MiB, the most that fits in memory; split it",
         files_[position_.file], position_.lines + 1, kMaxDocumentBytes >> 20);
  }
  bytes.append(buffer_.data() + begin_, count);
  begin_ += count;
  position_.offset += static_cast<int64_t>(count);
}

bool CorpusReader::next_line(std::string& line) {
  line.clear();
  while (begin_ < end_ || fill()) {
    const void* newline = std::memchr(buffer_.data() + begin_, '\n', end_ - begin_);
    const size_t end = newline == nullptr ? end_ : static_cast<const char*>(newline) - buffer_.data();
    take(line, end - begin_);
    if (newline == nullptr) continue;
    ++begin_;
    ++position_.offset;
    ++position_.lines;
    return true;
  }
  if (line.empty()) return false;
  ++position_.lines;
  return true;
}

void CorpusReader::read_whole(std::string& text) {
  text.clear();
  while (begin_ < end_ || fill()) take(text, end_ - begin_);
}

}  // namespace mhmoe::data
