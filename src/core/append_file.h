// Files that grow at their end: records of a run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"

namespace mhmoe {

// A regular file open for appending, created if absent, as is the folder it lies in. Nothing is buffered: what write()
// returned from is seen by readers, though on disk only after sync(). Throws as fail_errno: kCannotCreate from the
// constructor, kIo afterwards.
class MHMOE_API AppendFile {
 public:
  explicit AppendFile(const std::string& path);
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  const std::string& path() const { return path_; }
  // Whole or not at all, as far as the file system lets a failed write be taken back.
  void write(const void* data, size_t bytes);
  // `line` and the end of the line, in one write.
  void write_line(std::string_view line);
  int64_t size() const;
  // Keeps the first `bytes`. Throws Error(kBadData) when there are fewer.
  void truncate(int64_t bytes);
  void sync();

 private:
  void check(int result, const char* doing) const;

  std::string path_;
  int descriptor_;
};

}  // namespace mhmoe
