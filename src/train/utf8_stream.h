// Text that arrives in pieces of bytes, which may end within a character.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace mhmoe::train {

// Gives out valid UTF-8 as early as it can: the beginning of a character is held back until the rest is there, and what
// can never become one (each longest piece that begins like a character) is replaced by U+FFFD, as Unicode recommends.
class Utf8Stream {
 public:
  // What has become complete.
  std::string add(std::string_view bytes);
  // What is left at the end.
  std::string finish();

 private:
  std::string pending_;  // the beginning of one character, or nothing
};

// Where the first byte lies that is not part of valid UTF-8.
std::optional<size_t> first_invalid_utf8(std::string_view text);

}  // namespace mhmoe::train
