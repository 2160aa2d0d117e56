#include "cli/output.h"

#include <cerrno>
#include <cstdio>

#include "core/file.h"

namespace mhmoe::cli {

void write_output(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) fail_errno("standard output", "write", errno);
}

void check_output() {
  const bool lost = std::ferror(stdout) != 0;
  if (lost) errno = EIO;  // the reason of an earlier failure is not kept
  if (std::fflush(stdout) != 0 || lost) fail_errno("standard output", "write", errno);
}

}  // namespace mhmoe::cli
