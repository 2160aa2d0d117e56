#include "train/utf8_stream.h"

#include <algorithm>

namespace mhmoe::train {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";

// What a character's first byte says about it: its length (0: no character begins like this) and the range of its
// second byte, narrower than 80..BF where a shorter spelling, a surrogate or a code point above 10FFFF would begin.
struct Lead {
  size_t length = 0;
  unsigned char low = 0x80, high = 0xBF;
};

Lead lead_of(unsigned char byte) {
  if (byte < 0x80) return {1};
  if (byte < 0xC2) return {0};
  if (byte < 0xE0) return {2};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0};
}

// How `text`, not empty, begins.
struct Beginning {
  enum class Kind { kCharacter, kCutOff, kInvalid } kind;
  size_t bytes;  // of the character, or of what cannot become one
};

Beginning beginning_of(std::string_view text) {
  const Lead lead = lead_of(static_cast<unsigned char>(text[0]));
  if (lead.length == 0) return {Beginning::Kind::kInvalid, 1};
  size_t valid = 1;
  for (; valid < std::min(lead.length, text.size()); ++valid) {
    const auto byte = static_cast<unsigned char>(text[valid]);
    const bool second = valid == 1;
    if (byte < (second ? lead.low : 0x80) || byte > (second ? lead.high : 0xBF)) {
      return {Beginning::Kind::kInvalid, valid};
    }
  }
  return {valid == lead.length ? Beginning::Kind::kCharacter : Beginning::Kind::kCutOff, valid};
}

}  // namespace

std::string Utf8Stream::add(std::string_view bytes) {
  pending_ += bytes;
  std::string complete;
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const Beginning next = beginning_of(rest);
    if (next.kind == Beginning::Kind::kCutOff) break;
    complete += next.kind == Beginning::Kind::kCharacter ? rest.substr(0, next.bytes) : kReplacement;
    rest.remove_prefix(next.bytes);
  }
  pending_ = std::string(rest);
  return complete;
}

std::string Utf8Stream::finish() {
  const bool cut_off = !pending_.empty();
  pending_.clear();
  return std::string(cut_off ? kReplacement : "");
}

std::optional<size_t> first_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Beginning next = beginning_of(text.substr(at));
    if (next.kind != Beginning::Kind::kCharacter) return at;
    at += next.bytes;
  }
  return std::nullopt;
}

}  // namespace mhmoe::train
