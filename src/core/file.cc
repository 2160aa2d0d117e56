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

#include "core/error.h"

namespace mhmoe {
namespace {

// A rename is durable only once its folder is on the disk too. File systems that cannot sync a folder say EINVAL.
void sync_folder_of(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  const int folder = open(parent.empty() ? "." : parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) fail(ExitCode::kIo, "{}: cannot open its folder to sync it: {}", path, std::strerror(errno));
  const bool failed = fsync(folder) != 0 && errno != EINVAL;
  const int error = errno;
  close(folder);
  if (failed) fail(ExitCode::kIo, "{}: cannot sync its folder: {}", path, std::strerror(error));
}

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) fail(ExitCode::kMissingInput, "{}: cannot open: {}", path, std::strerror(errno));
  struct stat status {};
  if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(file);
    fail(ExitCode::kMissingInput, "{}: not a regular file", path);
  }
  size_ = static_cast<size_t>(status.st_size);
  void* data = size_ == 0 ? nullptr : mmap(nullptr, size_, PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (data == MAP_FAILED) fail(ExitCode::kIo, "{}: cannot map {} bytes: {}", path, size_, std::strerror(error));
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
  if (file_ == nullptr) fail(ExitCode::kCannotCreate, "{}: cannot create: {}", temporary_path_, std::strerror(errno));
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  unlink(temporary_path_.c_str());
}

void AtomicFile::fail_io(const char* doing) const {
  fail(ExitCode::kIo, "{}: cannot {}: {}", temporary_path_, doing, std::strerror(errno));
}

void AtomicFile::write(const void* data, size_t bytes) {
  if (bytes != 0 && std::fwrite(data, 1, bytes, file_) != bytes) fail_io("write");
}

void AtomicFile::commit() {
  if (std::fflush(file_) != 0) fail_io("write");
  if (fsync(fileno(file_)) != 0) fail_io("sync");
  if (std::rename(temporary_path_.c_str(), path_.c_str()) != 0) fail_io("rename");
  std::fclose(std::exchange(file_, nullptr));
  sync_folder_of(path_);
}

void create_parent_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (parent.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) fail(ExitCode::kCannotCreate, "{}: cannot create folder: {}", parent.string(), error.message());
}

}  // namespace mhmoe
