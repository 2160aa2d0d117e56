// Log lines for a person: standard error, and a run's log.txt once one is open.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/error.h"

namespace mhmoe::log {

enum class Level { kInfo, kWarning, kError };

// One line; control characters are escaped, so that no input can forge or hide a line.
MHMOE_API void write(Level level, std::string_view message);
// Which rank of a job this process is: others than 0 keep their information to themselves and warn under their number.
MHMOE_API void set_rank(int rank);
// Lines of this level written so far by the whole process, backend modules included.
MHMOE_API int64_t lines(Level level);
// Every line from now on also goes to this file (appended). Empty path: no file.
MHMOE_API void set_file(const std::string& path);

template <class... Args>
void info(fmt::format_string<Args...> message, Args&&... args) {
  write(Level::kInfo, fmt::format(message, std::forward<Args>(args)...));
}
template <class... Args>
void warning(fmt::format_string<Args...> message, Args&&... args) {
  write(Level::kWarning, fmt::format(message, std::forward<Args>(args)...));
}
template <class... Args>
void error(fmt::format_string<Args...> message, Args&&... args) {
  write(Level::kError, fmt::format(message, std::forward<Args>(args)...));
}

}  // namespace mhmoe::log
