// Messages.
#pragma once

#include <string>

namespace emulator {

// As printf.
[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...);

}  // namespace emulator
