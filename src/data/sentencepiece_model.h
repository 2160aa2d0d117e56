// What a serialised SentencePiece model says that libsentencepiece keeps to itself.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace mhmoe::data {

// Defaults are those of sentencepiece_model.proto.
struct SentencePieceModel {
  enum class Type : uint8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  struct Piece {
    std::string text;
    float score = 0;
    Type type = Type::kNormal;
  };
  std::vector<Piece> pieces;  // by id
  bool is_bpe = false;
  bool byte_fallback = false;
  bool has_character_map = false;  // normalisation other than of spaces
  bool adds_dummy_prefix = true;
  bool removes_extra_spaces = true;
  bool escapes_spaces = true;  // writes them as U+2581

  // Text reaches the pieces unchanged, but for spaces being written as U+2581.
  bool keeps_text() const {
    return !has_character_map && !adds_dummy_prefix && !removes_extra_spaces && escapes_spaces;
  }
};

// `bytes` as libsentencepiece has accepted them. Throws Error(kInternal) where they are no protocol buffer.
SentencePieceModel parse_sentencepiece_model(std::string_view bytes);

}  // namespace mhmoe::data
