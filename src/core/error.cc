#include "core/error.h"

namespace mhmoe {
namespace {

constexpr size_t kLongest = 4000;

constexpr std::string_view kCut = " ... ";

bool is_control(unsigned char c) {
  return c < 0x20 || c == 0x7f;
}

// U+0080 to U+009F in UTF-8: terminals take them for control characters too.
bool is_wide_control(std::string_view text) {
  return text.size() > 1 && text[0] == '\xc2' && static_cast<unsigned char>(text[1]) < 0xa0;
}

}  // namespace

std::string one_line(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (is_wide_control(text.substr(i))) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[++i]));
    } else if (is_control(byte)) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text[i];
    }
  }
  if (out.size() > kLongest) out.replace(kLongest / 2, out.size() - kLongest + kCut.size(), kCut);
  return out;
}

Error::Error(ExitCode code, const std::string& message) : std::runtime_error(one_line(message)), code_(code) {}

Error::~Error() = default;

}  // namespace mhmoe
