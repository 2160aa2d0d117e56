#include "data/byte_pair_encoder.h"

#include <sentencepiece_processor.h>

#include <cstring>
#include <random>
#include <set>

#include "data/fixtures.h"
#include "data/sentencepiece_tokenizer.h"

namespace mhmoe::data {
namespace {

// A SentencePiece model written by hand, field by field of sentencepiece_model.proto.
class ModelWriter {
 public:
  ModelWriter() {
    add("<unk>", 0, 2);
    add("</s>", 0, 3);
    for (int byte = 0; byte < 256; ++byte) add(fmt::format("<0x{:02X}>", byte), 0, 6);
  }
  void add(const std::string& piece, float score, int type = 1) {
    std::string real(4, '\0');
    std::memcpy(real.data(), &score, 4);
    message(pieces_, 1, bytes(1, piece) + "\x15" + real + number(3, type));
  }
  bool keeps_text = true;
  std::string model(int type = 2) const {
    std::string all = pieces_;
    message(all, 2, number(3, type) + number(35, 1));
    message(all, 3, keeps_text ? number(3, 0) + number(4, 0) : "");
    return all;
  }

 private:
  static std::string varint(uint64_t value) {
    std::string out;
    for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
    return out + static_cast<char>(value);
  }
  static std::string number(int field, uint64_t value) { return varint(field << 3) + varint(value); }
  static std::string bytes(int field, const std::string& text) {
    return varint(field << 3 | 2) + varint(text.size()) + text;
  }
  static void message(std::string& all, int field, const std::string& content) { all += bytes(field, content); }
  std::string pieces_;
};

const std::vector<std::string> kLetters = {"a", "b", "c", "\xc3\xa9", "\xe6\x97\xa5", "\xf0\x9f\xa6\x98", " "};

std::string random_text(std::mt19937& random, size_t length, bool as_piece) {
  std::string text;
  for (size_t i = 0; i < length; ++i) {
    const std::string& letter = kLetters[random() % kLetters.size()];
    text += as_piece && letter == " " ? "\xe2\x96\x81" : letter;
  }
  return text;
}

// Scores often tie, and many pieces have letters or halves that are no pieces.
TEST(BytePairEncoder, GivesTheIdsOfTheLibraryForRandomModels) {
  std::mt19937 random(5);
  for (int trial = 0; trial < 150; ++trial) {
    ModelWriter writer;
    std::set<std::string> pieces;
    const size_t count = 1 + random() % 60;
    while (pieces.size() < count) pieces.insert(random_text(random, 1 + random() % 4, true));
    for (const std::string& piece : pieces) writer.add(piece, -static_cast<float>(random() % 12));
    const std::string model = writer.model();
    sentencepiece::SentencePieceProcessor library;
    ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
    const auto encoder = BytePairEncoder::create(parse_sentencepiece_model(model));
    ASSERT_NE(encoder, nullptr);
    const auto tokenizer = make_sentencepiece_tokenizer("random.model", model);
    for (int i = 0; i < 60; ++i) {
      const std::string text = random_text(random, i < 59 ? random() % 40 : 5000, false);
      std::vector<int32_t> ids, of_tokenizer;
      encoder->encode(text, ids);
      ASSERT_TRUE(ids == library.EncodeAsIds(text)) << text;
      tokenizer->encode(text, of_tokenizer);
      ASSERT_TRUE(of_tokenizer == ids) << text;
    }
  }
}

TEST(BytePairEncoder, LeavesOtherModelsToTheLibrary) {
  const auto is_ours = [](const ModelWriter& writer, int type = 2) {
    const std::string model = writer.model(type);
    EXPECT_TRUE(sentencepiece::SentencePieceProcessor().LoadFromSerializedProto(model).ok());
    return BytePairEncoder::create(parse_sentencepiece_model(model)) != nullptr;
  };
  ModelWriter plain;
  plain.add("a", -1);
  EXPECT_TRUE(is_ours(plain));
  EXPECT_FALSE(is_ours(plain, 1));  // unigram
  ModelWriter user_defined = plain;
  user_defined.add("ab", -2, 4);
  EXPECT_FALSE(is_ours(user_defined));
  ModelWriter unused = plain;
  unused.add("ab", -2, 5);
  EXPECT_FALSE(is_ours(unused));
  ModelWriter normalised = plain;
  normalised.keeps_text = false;
  EXPECT_FALSE(is_ours(normalised));
}

TEST(BytePairEncoder, TheTokenizerGivesTheIdsOfTheLibraryWhereItsSpacesAreChanged) {
  ModelWriter writer;
  for (const char* piece : {"a", "b", "\xe2\x96\x81",
                            "\xe2\x96\x81"
                            "a"})
    writer.add(piece, -1);
  writer.keeps_text = false;  // a space is put in front, runs of spaces become one
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(writer.model()).ok());
  const auto tokenizer = make_sentencepiece_tokenizer("changed.model", writer.model());
  for (const char* text : {"a  b", "  a", "ab a ", "a b   a"}) {
    std::vector<int32_t> ids;
    tokenizer->encode(text, ids);
    EXPECT_EQ(ids, library.EncodeAsIds(text)) << text;
  }
}

}  // namespace
}  // namespace mhmoe::data
