#include "core/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "core/file_system.h"

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

constexpr size_t kBufferBytes = size_t{256} << 10;

// No name that another process has, by chance or on purpose.
std::string temporary_name(const std::string& path) {
  uint64_t random = 0;
  if (getrandom(&random, sizeof(random), 0) != sizeof(random)) fail_errno(path, "draw a random name", errno);
  return fmt::format("{}.tmp-{}-{:016x}", path, getpid(), random);
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

AtomicFile::AtomicFile(const std::string& path) : path_(path), temporary_path_(temporary_name(path)) {
  create_parent_folder(path);
  buffer_.reserve(kBufferBytes);
  descriptor_ = file_system().create(temporary_path_.c_str());
  if (descriptor_ < 0) fail_errno(path, "create", -descriptor_, ExitCode::kCannotCreate);
}

AtomicFile::~AtomicFile() {
  discard();
}

void AtomicFile::discard() {
  if (descriptor_ >= 0) file_system().close(std::exchange(descriptor_, -1));
  if (!temporary_path_.empty()) file_system().remove_file(std::exchange(temporary_path_, {}).c_str());
}

void AtomicFile::check(int result, const char* doing) {
  if (result >= 0) return;
  discard();
  fail_errno(path_, doing, -result);
}

void AtomicFile::flush() {
  check(write_whole(descriptor_, buffer_.data(), buffer_.size()), "write");
  buffer_.clear();
}

void AtomicFile::write(const void* data, size_t bytes) {
  MHMOE_CHECK(descriptor_ >= 0, "{}: written after it was committed or failed", path_);
  if (buffer_.size() + bytes > kBufferBytes) flush();
  if (bytes > kBufferBytes) {
    check(write_whole(descriptor_, data, bytes), "write");
  } else {
    const auto* from = static_cast<const std::byte*>(data);
    buffer_.insert(buffer_.end(), from, from + bytes);
  }
}

void AtomicFile::commit() {
  MHMOE_CHECK(descriptor_ >= 0, "{}: committed after it was committed or failed", path_);
  flush();
  check(file_system().sync(descriptor_), "sync");
  check(file_system().close(std::exchange(descriptor_, -1)), "close");
  check(file_system().rename(temporary_path_.c_str(), path_.c_str()), "rename");
  temporary_path_.clear();
  const std::filesystem::path parent = std::filesystem::path(path_).parent_path();
  check(file_system().sync_folder(parent.empty() ? "." : parent.c_str()), "sync its folder");
}

void create_parent_folder(const std::string& path) {
  const std::filesystem::path parent = std::filesystem::path(path).parent_path();
  if (parent.empty()) return;
  std::error_code error;
  std::filesystem::create_directories(parent, error);
  if (error) fail_errno(parent.string(), "create the folder", error.value(), ExitCode::kCannotCreate);
}

}  // namespace mhmoe
