#include "data/input_stream.h"

#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "core/file.h"

namespace mhmoe::data {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 18;

class PlainStream final : public InputStream {
 public:
  explicit PlainStream(const std::string& path) : file_(path) {}
  size_t read(char* out, size_t bytes) override {
    bytes = std::min(bytes, file_.size() - at_);
    if (bytes == 0) file_.check_unchanged();
    file_.read(out, bytes, at_);
    at_ += bytes;
    return bytes;
  }
  void skip(int64_t bytes) override { at_ = std::min(file_.size(), at_ + static_cast<size_t>(bytes)); }
  int64_t file_offset() const override { return static_cast<int64_t>(at_); }

 private:
  InputFile file_;
  size_t at_ = 0;
};

// What the two compressed formats share: the file's bytes in a buffer, and members (frames) one after another.
class CompressedStream : public InputStream {
 public:
  size_t read(char* out, size_t bytes) final {
    if (bytes == 0) return 0;
    while (true) {
      if (used_ == buffer_.size()) fill();
      const bool at_end = buffer_.empty();
      if (at_end && between_members_ && offset_ > 0) return 0;
      if (at_end && !has_pending_output()) {
        fail(ExitCode::kBadData, "{}: truncated: the {} data breaks off at byte {}", file_.path(), format_, offset_);
      }
      if (const size_t made = decompress(out, bytes); made > 0) return made;
    }
  }
  int64_t file_offset() const final {
    return static_cast<int64_t>(offset_) - static_cast<int64_t>(buffer_.size() - used_);
  }

 protected:
  CompressedStream(const std::string& path, const char* format) : file_(path), format_(format) {}

  // Decompresses from input() on, and says what it used and whether that ended a member. Returns the bytes it gave.
  virtual size_t decompress(char* out, size_t bytes) = 0;
  // More output may come without more input.
  virtual bool has_pending_output() const = 0;

  const std::byte* input() const { return buffer_.data() + used_; }
  size_t input_bytes() const { return buffer_.size() - used_; }
  void use(size_t bytes, bool ends_member) {
    used_ += bytes;
    if (bytes > 0 || ends_member) between_members_ = ends_member;
  }
  [[noreturn]] void damaged(std::string_view why) const {
    fail(ExitCode::kBadData, "{}: damaged {} data near byte {}: {}", file_.path(), format_, file_offset(), why);
  }

 private:
  void fill() {
    buffer_.resize(std::min(kBufferBytes, file_.size() - offset_));
    used_ = 0;
    if (buffer_.empty()) file_.check_unchanged();
    file_.read(buffer_.data(), buffer_.size(), offset_);
    offset_ += buffer_.size();
  }

  InputFile file_;
  const char* format_;
  std::vector<std::byte> buffer_;
  size_t used_ = 0;    // of the buffer
  size_t offset_ = 0;  // of the file behind the buffer
  bool between_members_ = true;
};

class GzipStream final : public CompressedStream {
 public:
  explicit GzipStream(const std::string& path) : CompressedStream(path, "gzip") {
    constexpr int kGzipOnly = 15 + 16;
    if (inflateInit2(&stream_, kGzipOnly) != Z_OK) fail(ExitCode::kMemory, "{}: no memory for zlib", path);
  }
  ~GzipStream() override { inflateEnd(&stream_); }

 private:
  size_t decompress(char* out, size_t bytes) override {
    if (ended_ && inflateReset(&stream_) != Z_OK) damaged("zlib cannot start another member");
    ended_ = false;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(input()));
    stream_.avail_in = static_cast<uInt>(input_bytes());
    stream_.next_out = reinterpret_cast<Bytef*>(out);
    const auto room = static_cast<uInt>(std::min<size_t>(bytes, std::numeric_limits<uInt>::max()));
    stream_.avail_out = room;
    const int result = inflate(&stream_, Z_NO_FLUSH);
    ended_ = result == Z_STREAM_END;
    pending_ = !ended_ && stream_.avail_out == 0;
    use(input_bytes() - stream_.avail_in, ended_);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      damaged(stream_.msg == nullptr ? "zlib gives no reason" : stream_.msg);
    }
    return room - stream_.avail_out;
  }
  bool has_pending_output() const override { return pending_; }

  z_stream stream_{};
  bool ended_ = false;    // a member just did; another may follow
  bool pending_ = false;  // the last call filled all the room it had
};

class ZstdStream final : public CompressedStream {
 public:
  explicit ZstdStream(const std::string& path)
      : CompressedStream(path, "zstd"), stream_(ZSTD_createDStream(), &ZSTD_freeDStream) {
    if (stream_ == nullptr) fail(ExitCode::kMemory, "{}: no memory for zstd", path);
  }

 private:
  size_t decompress(char* out, size_t bytes) override {
    ZSTD_inBuffer in{input(), input_bytes(), 0};
    ZSTD_outBuffer to{out, bytes, 0};
    const size_t result = ZSTD_decompressStream(stream_.get(), &to, &in);
    if (ZSTD_isError(result)) damaged(ZSTD_getErrorName(result));
    use(in.pos, result == 0);
    pending_ = result != 0 && to.pos == to.size;
    return to.pos;
  }
  bool has_pending_output() const override { return pending_; }

  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  bool pending_ = false;
};

}  // namespace

void InputStream::skip(int64_t bytes) {
  std::vector<char> dropped(kBufferBytes);
  while (bytes > 0) {
    const size_t some = read(dropped.data(), std::min(dropped.size(), static_cast<size_t>(bytes)));
    if (some == 0) return;
    bytes -= static_cast<int64_t>(some);
  }
}

std::string_view without_compression(std::string_view name) {
  for (const std::string_view suffix : {".gz", ".zst"}) {
    if (name.ends_with(suffix)) return name.substr(0, name.size() - suffix.size());
  }
  return name;
}

std::unique_ptr<InputStream> open_input(const std::string& path) {
  if (path.ends_with(".gz")) return std::make_unique<GzipStream>(path);
  if (path.ends_with(".zst")) return std::make_unique<ZstdStream>(path);
  return std::make_unique<PlainStream>(path);
}

}  // namespace mhmoe::data
