// Files that are read through the page cache, and files that appear whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/api.h"
#include "core/error.h"

namespace mhmoe {

// Throws Error "PATH: cannot DOING: (what the errno value `error` means)", with the full path of a relative one that
// leads nowhere. A denied permission gives kPermission, a
// full or failing disk kIo, a path that leads nowhere kMissingInput unless `otherwise` is kCannotCreate, all else
// `otherwise`.
[[noreturn]] MHMOE_API void fail_errno(const std::string& path, const char* doing, int error,
                                       ExitCode otherwise = ExitCode::kIo);

// By what a file is known again.
struct FileState {
  uint64_t device = 0, inode = 0;
  int64_t bytes = 0;
  int64_t modified = 0;  // nanoseconds since 1970
  bool operator==(const FileState&) const = default;
};

// Whether a path may end in a symbolic link. A link or a special file among files that must be the program's own, as
// those of a checkpoint, is Error(kPermission).
enum class Links : uint8_t { kFollow, kRefuse };

// A regular file open for reading; opening anything else never waits. Throws as fail_errno, or Error(kMissingInput) for
// what is no regular file. A file that is cut while it is used gives Error(kIo) "PATH: changed while it was being read
// ..."; one that is replaced or written to does so only where check_unchanged() asks, and until then reads as the file
// that was opened.
class MHMOE_API InputFile {
 public:
  explicit InputFile(const std::string& path, Links links = Links::kFollow);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  int descriptor() const { return descriptor_; }
  const FileState& state() const { return state_; }  // when it was opened
  size_t size() const { return static_cast<size_t>(state_.bytes); }
  // Throws Error(kBadData) when bytes beyond size() are asked for. A failing disk is told with the offset.
  void read(void* data, size_t bytes, size_t offset) const;
  std::string read_whole() const;
  // Error(kIo) unless the path still leads to the same file, of the same size and time of modification.
  void check_unchanged() const;

 private:
  std::string path_;
  int descriptor_;
  FileState state_;
};

// A read-only memory map of a whole regular file. Nothing points into it, so no read can end in SIGBUS. Throws as
// InputFile.
class MHMOE_API MappedFile {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;

  const std::string& path() const { return path_; }
  size_t size() const { return static_cast<size_t>(state_.bytes); }
  // The bytes must lie within size(). Error(kIo) where the file was cut or the disk fails. Where it was cut within a
  // page, the rest of that page reads as zeros; check_unchanged() tells.
  void copy(void* out, size_t bytes, size_t offset) const;
  void check_unchanged() const;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  FileState state_;
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
