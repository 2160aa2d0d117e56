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
#include "core/guarded_copy.h"

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

FileState state_of(const struct stat& status) {
  return {.device = status.st_dev,
          .inode = status.st_ino,
          .bytes = status.st_size,
          .modified = status.st_mtim.tv_sec * int64_t{1'000'000'000} + status.st_mtim.tv_nsec};
}

[[noreturn]] void fail_changed(const std::string& path, const std::string& how) {
  fail(ExitCode::kIo, "{}: changed while it was being read ({}); leave the files alone while they are in use", path,
       how);
}

void check_state(const std::string& path, const FileState& before) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    const int error = errno;
    if (error == ENOENT) fail_changed(path, "it was removed");
    fail_errno(path, "look whether it has changed", error);
  }
  const FileState now = state_of(status);
  if (now == before) return;
  if (now.bytes != before.bytes) {
    fail_changed(path, fmt::format("it had {} bytes, now {}", before.bytes, now.bytes));
  }
  const bool same = now.inode == before.inode && now.device == before.device;
  fail_changed(path, same ? "it was written to" : "it was replaced by another file");
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
  std::string where;
  std::error_code unknown;
  if ((error == ENOENT || error == ENOTDIR) && std::filesystem::path(path).is_relative()) {
    where = fmt::format(" (it is {})", std::filesystem::absolute(path, unknown).lexically_normal().string());
  }
  fail(exit_code(error, otherwise), "{}: cannot {}: {}{}", path, doing, std::strerror(error), where);
}

InputFile::InputFile(const std::string& path, Links links)
    : path_(path),
      descriptor_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | (links == Links::kRefuse ? O_NOFOLLOW : 0))) {
  const ExitCode irregular = links == Links::kRefuse ? ExitCode::kPermission : ExitCode::kMissingInput;
  if (descriptor_ < 0) {
    const int error = errno;
    if (links == Links::kRefuse && error == ELOOP)
      fail(irregular, "{}: a symbolic link, which is not followed here", path);
    fail_errno(path, "open", error);
  }
  struct stat status {};
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    close(descriptor_);
    fail(irregular, "{}: {}", path, S_ISDIR(status.st_mode) ? "a folder, where a file belongs" : "not a regular file");
  }
  state_ = state_of(status);
}

InputFile::~InputFile() {
  close(descriptor_);
}

void InputFile::read(void* data, size_t bytes, size_t offset) const {
  if (offset > size() || bytes > size() - offset) {
    fail(ExitCode::kBadData, "{}: is truncated: it ends at byte {}", path_, size());
  }
  auto* out = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const ssize_t n = pread(descriptor_, out, bytes, static_cast<off_t>(offset));
    const int error = n < 0 ? errno : 0;
    if (error == EINTR) continue;
    if (error != 0) fail_errno(path_, fmt::format("read {} bytes at offset {}", bytes, offset).c_str(), error);
    if (n == 0) fail_changed(path_, fmt::format("it had {} bytes, now {}", size(), offset));
    out += n;
    offset += static_cast<size_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

std::string InputFile::read_whole() const {
  std::string text(size(), '\0');
  read(text.data(), text.size(), 0);
  return text;
}

void InputFile::check_unchanged() const {
  check_state(path_, state_);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const InputFile file(path);
  state_ = file.state();
  void* data = size() == 0 ? nullptr : mmap(nullptr, size(), PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED) fail_errno(path, "map", errno);
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      state_(std::exchange(other.state_, {})) {}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size());
}

void MappedFile::copy(void* out, size_t bytes, size_t offset) const {
  MHMOE_CHECK(offset <= size() && bytes <= size() - offset, "{}: bytes {} to {} of {}", path_, offset, offset + bytes,
              size());
  if (bytes == 0 || guarded_copy(out, data_ + offset, bytes)) return;
  check_unchanged();
  fail_errno(path_, fmt::format("read {} bytes at offset {}", bytes, offset).c_str(), EIO);
}

void MappedFile::check_unchanged() const {
  check_state(path_, state_);
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
