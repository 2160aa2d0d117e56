// Files that are read through the page cache, and files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "core/api.h"

namespace mhmoe {

// A read-only memory map of a whole file. Throws Error(kMissingInput) when the file cannot be opened.
class MHMOE_API MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Written to PATH.tmp-PID; commit() syncs it and renames it to PATH, so that PATH is always whole. Without commit() the
// temporary file is removed and PATH is left as it was. Throws Error(kCannotCreate) or Error(kIo), naming the file.
class MHMOE_API AtomicFile {
 public:
  explicit AtomicFile(const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(const void* data, size_t bytes);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  [[noreturn]] void fail_io(const char* doing) const;

  std::string path_;
  std::string temporary_path_;
  std::FILE* file_ = nullptr;
};

// Creates the folder that `path` lies in, and its parents.
MHMOE_API void create_parent_folder(const std::string& path);

}  // namespace mhmoe
