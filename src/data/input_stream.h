// The bytes of a corpus file, decompressed where its name ends in .gz or .zst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace mhmoe::data {

class InputStream {
 public:
  virtual ~InputStream() = default;
  // Fills `out` with up to `bytes` and returns how many, 0 at the end. Throws Error(kBadData) naming the place in the
  // file where compressed data is damaged or breaks off, Error(kIo) where the file changed since it was opened.
  virtual size_t read(char* out, size_t bytes) = 0;
  // Skips `bytes` of what read() would give.
  virtual void skip(int64_t bytes);
  // How far it is through the file itself.
  virtual int64_t file_offset() const = 0;
};

std::unique_ptr<InputStream> open_input(const std::string& path);

// `name` without .gz or .zst.
std::string_view without_compression(std::string_view name);

}  // namespace mhmoe::data
