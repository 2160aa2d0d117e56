#include "core/hash.h"

#include <gtest/gtest.h>

namespace mhmoe {
namespace {

// Published by the library's authors for the empty input.
TEST(Hash, IsXxh3) {
  EXPECT_EQ(xxh3(""), 0x2d06800538d394c2u);
  EXPECT_EQ(xxh3(nullptr, 0), xxh3(""));
  EXPECT_NE(xxh3("a", 1, 7), xxh3("a", 1));
}

TEST(Hash, PiecesGiveTheHashOfTheWhole) {
  std::string text;
  for (int i = 0; i < 5000; ++i) text.push_back(static_cast<char>(i * 37));
  HashStream stream;
  EXPECT_EQ(stream.digest(), xxh3(""));
  for (size_t begin = 0, piece = 0; begin < text.size(); begin += piece, ++piece) {
    stream.update(text.substr(begin, piece));
  }
  EXPECT_EQ(stream.digest(), xxh3(text));
  HashStream moved = std::move(stream);
  moved.update("more");
  EXPECT_EQ(moved.digest(), xxh3(text + "more"));
  moved.reset();
  EXPECT_EQ(moved.digest(), xxh3(""));
}

TEST(Hash, TextIsSixteenDigitsAndNothingElseIsRead) {
  for (const uint64_t hash : {uint64_t{0}, uint64_t{0xabc}, UINT64_MAX, xxh3("x")}) {
    EXPECT_EQ(to_hex(hash).size(), 16u);
    EXPECT_EQ(from_hex(to_hex(hash)), hash);
  }
  for (const char* text : {"", "abc", "0x00000000000000", "000000000000000G", "000000000000000A", "-000000000000001",
                           " 000000000000001", "00000000000000001"}) {
    EXPECT_FALSE(from_hex(text)) << text;
  }
}

}  // namespace
}  // namespace mhmoe
