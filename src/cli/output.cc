#include "cli/output.h"

#include <cerrno>
#include <cstdio>

#include "core/file.h"

namespace mhmoe::cli {

void write_output(std::string_view text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0) fail_errno("standard output", "write", errno);
}

}  // namespace mhmoe::cli
