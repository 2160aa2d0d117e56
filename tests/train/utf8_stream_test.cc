#include "train/utf8_stream.h"

#include <gtest/gtest.h>

#include <vector>

namespace mhmoe::train {
namespace {

constexpr const char* kReplacement = "\xef\xbf\xbd";

std::string in_pieces(const std::string& text, size_t size) {
  Utf8Stream stream;
  std::string out;
  for (size_t at = 0; at < text.size(); at += size) out += stream.add(text.substr(at, size));
  return out + stream.finish();
}

TEST(Utf8Stream, TextComesOutAsItWentInWhateverThePieces) {
  const std::string text = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\n";
  EXPECT_FALSE(first_invalid_utf8(text).has_value());
  for (size_t size = 1; size <= text.size(); ++size) EXPECT_EQ(in_pieces(text, size), text) << size;
}

TEST(Utf8Stream, HoldsBackTheBeginningOfACharacterAndNothingElse) {
  Utf8Stream stream;
  EXPECT_EQ(stream.add("ab\xf0\x9f"), "ab");
  EXPECT_EQ(stream.add("\x98"), "");
  EXPECT_EQ(stream.add("\x80q"), "\xf0\x9f\x98\x80q");
  EXPECT_EQ(stream.add("\xe2\x82"), "");
  EXPECT_EQ(stream.finish(), kReplacement);
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, WhatCannotBecomeACharacterIsReplaced) {
  const std::string r = kReplacement;
  const std::vector<std::pair<std::string, std::string>> cases{
      {"\x80", r},  // a continuation alone
      {"a\xff"
       "b",
       "a" + r + "b"},                      // no character has this byte
      {"\xc0\xaf", r + r},                  // a longer spelling than needed
      {"\xe0\x80\xaf", r + r + r},          // the same
      {"\xed\xa0\x80", r + r + r},          // half of a surrogate pair
      {"\xf4\x90\x80\x80", r + r + r + r},  // above U+10FFFF
      {"\xe2\x82x", r + "x"},               // cut off by another character
      {"\xf0\x9f\x98\xc3\xa9", r + "\xc3\xa9"},
      {"\xc3\xc3\xa9", r + "\xc3\xa9"},
  };
  for (const auto& [text, expected] : cases) {
    for (size_t size = 1; size <= text.size(); ++size) EXPECT_EQ(in_pieces(text, size), expected) << size;
    EXPECT_TRUE(first_invalid_utf8(text).has_value());
  }
}

// Every sequence of two bytes and, around each boundary, of three and four: what comes out is always valid, and equals
// what went in exactly when that was valid.
TEST(Utf8Stream, OutputIsAlwaysValid) {
  const auto check = [](const std::string& text) {
    const std::string out = in_pieces(text, 1);
    EXPECT_FALSE(first_invalid_utf8(out).has_value());
    EXPECT_EQ(out == text, !first_invalid_utf8(text).has_value());
  };
  const auto bytes = [](std::initializer_list<int> values) {
    std::string text;
    for (const int value : values) text.push_back(static_cast<char>(value));
    return text;
  };
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      check(bytes({a, b}));
      if (a >= 0xE0) check(bytes({a, b, 0x80})), check(bytes({a, b, 0x80, 0xBF})), check(bytes({a, b, 0xBF, 0xC0}));
    }
  }
}

TEST(Utf8Stream, TheFirstInvalidByteIsFound) {
  EXPECT_EQ(first_invalid_utf8("caf\xc3\xa9 \xe9t\xe9"), 6u);
  EXPECT_EQ(first_invalid_utf8("ok\xe2\x82"), 2u);
  EXPECT_FALSE(first_invalid_utf8("").has_value());
}

}  // namespace
}  // namespace mhmoe::train
