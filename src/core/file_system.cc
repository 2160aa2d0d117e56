#include "core/file_system.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>

namespace mhmoe {
namespace {

constexpr mode_t kFileMode = 0644;  // less the umask
constexpr mode_t kFolderMode = 0755;

int outcome(int returned) {
  return returned < 0 ? -errno : returned;
}

std::atomic<FileSystem*> replacement_in_use{nullptr};

}  // namespace

FileSystem::~FileSystem() = default;

int FileSystem::create(const char* path) {
  return outcome(open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kFileMode));
}

// Not blocking: a named pipe that nobody reads is an error, not a wait.
int FileSystem::open_append(const char* path) {
  return outcome(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, kFileMode));
}

int64_t FileSystem::write(int descriptor, const void* data, size_t bytes) {
  const ssize_t written = ::write(descriptor, data, bytes);
  return written < 0 ? -errno : written;
}

int FileSystem::truncate(int descriptor, int64_t bytes) {
  return outcome(ftruncate(descriptor, bytes));
}

int FileSystem::sync(int descriptor) {
  return outcome(fsync(descriptor));
}

// Linux has released the descriptor even where a signal cut the call short.
int FileSystem::close(int descriptor) {
  const int result = outcome(::close(descriptor));
  return result == -EINTR ? 0 : result;
}

int FileSystem::rename(const char* from, const char* to) {
  return outcome(std::rename(from, to));
}

int FileSystem::remove_file(const char* path) {
  return outcome(unlink(path));
}

int FileSystem::remove_folder(const char* path) {
  return outcome(rmdir(path));
}

int FileSystem::make_folder(const char* path) {
  return outcome(mkdir(path, kFolderMode));
}

int FileSystem::sync_folder(const char* path) {
  const int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0) return errno == EACCES ? 0 : -errno;
  const int result = outcome(fsync(folder));
  ::close(folder);
  return result == -EINVAL || result == -ENOTSUP ? 0 : result;
}

FileSystem& file_system() {
  static FileSystem system;
  FileSystem* replacement = replacement_in_use.load();
  return replacement == nullptr ? system : *replacement;
}

void use_file_system(FileSystem* replacement) {
  replacement_in_use.store(replacement);
}

int write_whole(int descriptor, const void* data, size_t bytes) {
  const auto* next = static_cast<const char*>(data);
  while (bytes > 0) {
    const int64_t written = file_system().write(descriptor, next, bytes);
    if (written == -EINTR) continue;
    if (written < 0) return static_cast<int>(written);
    if (written == 0) return -EIO;  // no progress and no reason given: it would never end
    next += written;
    bytes -= static_cast<size_t>(written);
  }
  return 0;
}

}  // namespace mhmoe
