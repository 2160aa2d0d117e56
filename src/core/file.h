// Files that are read through the page cache, and files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/api.h"
#include "core/error.h"

namespace mhmoe {

// Throws Error "PATH: cannot DOING: (what the errno value `error` means)". A denied permission gives kPermission, a
// full or failing disk kIo, a path that leads nowhere kMissingInput unless `otherwise` is kCannotCreate, all else
// `otherwise`.
[[noreturn]] MHMOE_API void fail_errno(const std::string& path, const char* doing, int error,
                                       ExitCode otherwise = ExitCode::kIo);

// A regular file open for reading. Throws as fail_errno, or Error(kMissingInput) for what is no regular file.
class MHMOE_API InputFile {
 public:
  explicit InputFile(const std::string& path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  size_t size() const { return size_; }
  // Throws Error(kBadData) when the file ends before offset + bytes.
  void read(void* data, size_t bytes, size_t offset) const;

 private:
  std::string path_;
  int descriptor_;
  size_t size_ = 0;
};

// A read-only memory map of a whole regular file. Throws as InputFile.
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

// Written to PATH.tmp-PID-RANDOM; commit() syncs it and renames it to PATH, so that PATH is always whole. Without
// commit(), or when anything fails, the temporary file is removed and PATH is left as it was; only a folder that cannot
// be synced fails after the rename. Creates the folder it lies in. Throws as fail_errno: kCannotCreate from the
// constructor, kIo afterwards, and of no use then.
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
  void check(int result, const char* doing);
  void discard();
  void flush();

  std::string path_;
  std::string temporary_path_;
  std::vector<std::byte> buffer_;
  int descriptor_ = -1;
};

// Creates the folder that `path` lies in, and its parents. Throws as fail_errno, kCannotCreate for most.
MHMOE_API void create_parent_folder(const std::string& path);

}  // namespace mhmoe
