#include "core/append_file.h"

#include <sys/stat.h>

#include <cerrno>

#include "core/file.h"
#include "core/file_system.h"

namespace mhmoe {

AppendFile::AppendFile(const std::string& path) : path_(path) {
  create_parent_folder(path);
  descriptor_ = file_system().open_append(path.c_str());
  if (descriptor_ < 0) fail_errno(path, "open for appending", -descriptor_, ExitCode::kCannotCreate);
  struct stat status {};
  if (fstat(descriptor_, &status) != 0 || !S_ISREG(status.st_mode)) {
    file_system().close(descriptor_);
    fail(ExitCode::kCannotCreate, "{}: not a regular file; remove it or choose another name", path);
  }
}

AppendFile::~AppendFile() {
  file_system().close(descriptor_);
}

void AppendFile::check(int result, const char* doing) const {
  if (result < 0) fail_errno(path_, doing, -result);
}

void AppendFile::write(const void* data, size_t bytes) {
  const int64_t before = size();
  const int result = write_whole(descriptor_, data, bytes);
  if (result < 0) file_system().truncate(descriptor_, before);
  check(result, "write");
}

void AppendFile::write_line(std::string_view line) {
  std::string text(line);
  text += '\n';
  write(text.data(), text.size());
}

int64_t AppendFile::size() const {
  struct stat status {};
  check(fstat(descriptor_, &status) == 0 ? 0 : -errno, "read the size");
  return status.st_size;
}

void AppendFile::truncate(int64_t bytes) {
  if (const int64_t now = size(); now < bytes) {
    fail(ExitCode::kBadData, "{}: has {} bytes, fewer than the {} to keep; it was changed since they were written",
         path_, now, bytes);
  }
  check(file_system().truncate(descriptor_, bytes), "truncate");
}

void AppendFile::sync() {
  check(file_system().sync(descriptor_), "sync");
}

}  // namespace mhmoe
