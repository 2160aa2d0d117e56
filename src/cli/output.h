// Standard output as the product of a command.
#pragma once

#include <string_view>

namespace mhmoe::cli {

// Writes and flushes. Throws Error(kIo) when it cannot: a full disk must not look like success.
void write_output(std::string_view text);
// Throws likewise if anything that went to standard output since the start was lost.
void check_output();

}  // namespace mhmoe::cli
