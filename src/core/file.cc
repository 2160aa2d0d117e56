#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

namespace mhmoe {
namespace {

ExitCode exit_code(int error, ExitCode otherwise) {
  switch (error) {
    case EACCES:
    case EPERM:
      return ExitCode::kPermission;
    case ENOENT:
    case ENOTDIR:
      return otherwise == ExitCode::kCannotCreate ? otherwise : ExitCode::kMissingInput;
    case EIO:
    case ENOSPC:
    case EDQUOT:
      return ExitCode::kIo;
    default:
      return otherwise;
  }
}

// A rename is durable only once its folder is on the disk too. File systems that cannot sync a folder say EINVAL, and a
// folder that may be written need not be readable.
void sync_folder_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const int folder = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0 && errno == EACCES) return;
  if (folder < 0) fail_errno(path, "open its folder to sync it", errno);
  const int error = fsync(folder) == 0 ? 0 : errno;
  close(folder);
  if (error != 0 && error != EINVAL) fail_errno(path, "sync its folder", error);
}

}  // namespace

void fail_errno(const std::string& path, const char* doing, int error, ExitCode otherwise) {
  fail(exit_code(error, otherwise), "{}: cannot {}: {}", path, doing, std::strerror(error));
}

InputFile::InputFile(const std::string& path)
    : path_(path), descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (descriptor_ < 0) fail_errno(path, "open", errno);
  struct stat status {};
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(descriptor_);
    fail(ExitCode::kMissingInput, "{}: not a regular file", path);
  }
  size_ = static_cast<size_t>(status.st_size);
}

InputFile::~InputFile() {
  close(descriptor_);
}

void InputFile::read(void* data, size_t bytes, size_t offset) const {
  auto* out = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const ssize_t n = pread(descriptor_, out, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path_, "read", errno);
    if (n == 0) fail(ExitCode::kBadData, "{}: is truncated: it ends at byte {}", path_, offset);
    out += n;
    offset += static_cast<size_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const InputFile file(path);
  size_ = file.size();
  void* data = size_ == 0 ? nullptr : mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED) fail_errno(path, "map", errno);
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

AtomicFile::AtomicFile(const std::string& path)
    : path_(path), temporary_path_(fmt::format("{}.tmp-{}", path, getpid())) {
  create_parent_folder(path);
  file_ = std::fopen(temporary_path_.c_str(), "wbe");
  if (file_ == nullptr) fail_errno(path, "create", errno, ExitCode::kCannotCreate);
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  unlink(temporary_path_.c_str());
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (bytes != 0 && std::fwrite(data, 1, bytes, file_) != bytes) fail_errno(path_, "write", errno);
}

void AtomicFile::commit() {
  if (std::fflush(file_) != 0) fail_errno(path_, "write", errno);
  if (fsync(fileno(file_)) != 0) fail_errno(path_, "sync", errno);
  if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) fail_errno(path_, "rename", errno);
  std::fclose(std::exchange(file_, nullptr));
  sync_folder_of(path_);
}

void create_parent_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (parent.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) fail_errno(parent.string(), "create the folder", error.value(), ExitCode::kCannotCreate);
}

}  // namespace mhmoe
