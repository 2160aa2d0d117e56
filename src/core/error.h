// The one exception type of the program, and the exit codes it carries to the shell.
#pragma once

#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <string_view>

#include "core/api.h"

namespace mhmoe {

// sysexits-style codes; what a scheduler sees. Documented in docs/errors.md.
enum class ExitCode : int {
  kOk = 0,
  kUsage = 64,
  kBadData = 65,
  kMissingInput = 66,
  kDevice = 69,
  kInternal = 70,
  kMemory = 71,
  kCannotCreate = 73,
  kIo = 74,
  kRequeue = 75,
  kPermission = 77,
  kConfig = 78,
  kNumeric = 80,
  kPeerLost = 81,
  kCorruption = 82,
};

// The text as one line that no terminal obeys: control characters become \x1b and the like. Beyond 4,000 bytes the
// middle is left out.
MHMOE_API std::string one_line(std::string_view text);

// what() is one_line() of the message: what was wrong, where, what was allowed, what to do. Names and values from files
// need no quoting of their own.
class MHMOE_API Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message);
  ~Error() override;  // out of line: one typeinfo, so that modules' exceptions are caught by type

  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

template <class... Args>
[[noreturn]] void fail(ExitCode code, fmt::format_string<Args...> message, Args&&... args) {
  throw Error(code, fmt::format(message, std::forward<Args>(args)...));
}

}  // namespace mhmoe

// For programmer errors (shapes, aliasing, misuse): always on, exit code 70.
#define MHMOE_CHECK(condition, ...)                             \
  do {                                                          \
    if (!(condition)) [[unlikely]] {                            \
      ::mhmoe::fail(::mhmoe::ExitCode::kInternal, __VA_ARGS__); \
    }                                                           \
  } while (false)
