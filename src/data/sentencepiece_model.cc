#include "data/sentencepiece_model.h"

#include <cstring>

#include "core/error.h"

namespace mhmoe::data {
namespace {

// The fields of a protocol buffer message, one after another.
class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  bool next() {
    if (rest_.empty()) return false;
    const uint64_t tag = varint();
    number = tag >> 3;
    switch (tag & 7) {
      case 0:
        value = varint();
        break;
      case 1:
        bytes = take(8);
        break;
      case 2:
        bytes = take(varint());
        break;
      case 5:
        bytes = take(4);
        break;
      default:
        fail(ExitCode::kInternal, "SentencePiece model: wire type {}", tag & 7);
    }
    return true;
  }
  float real() const {
    float f = 0;
    if (bytes.size() == sizeof(f)) std::memcpy(&f, bytes.data(), sizeof(f));
    return f;
  }

  uint64_t number = 0;
  uint64_t value = 0;      // of a varint
  std::string_view bytes;  // of all else

 private:
  std::string_view take(uint64_t count) {
    if (count > rest_.size()) fail(ExitCode::kInternal, "SentencePiece model: a field of {} bytes breaks off", count);
    const std::string_view taken = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return taken;
  }
  uint64_t varint() {
    uint64_t result = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      result |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return result;
  }

  std::string_view rest_;
};

SentencePieceModel::Piece parse_piece(std::string_view bytes) {
  SentencePieceModel::Piece piece;
  for (Fields field(bytes); field.next();) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2) piece.score = field.real();
    if (field.number == 3) piece.type = static_cast<SentencePieceModel::Type>(field.value);
  }
  return piece;
}

void parse_trainer(std::string_view bytes, SentencePieceModel& model) {
  constexpr uint64_t kBpe = 2;
  for (Fields field(bytes); field.next();) {
    if (field.number == 3) model.is_bpe = field.value == kBpe;
    if (field.number == 35) model.byte_fallback = field.value != 0;
  }
}

void parse_normalizer(std::string_view bytes, SentencePieceModel& model) {
  for (Fields field(bytes); field.next();) {
    if (field.number == 2) model.has_character_map = !field.bytes.empty();
    if (field.number == 3) model.adds_dummy_prefix = field.value != 0;
    if (field.number == 4) model.removes_extra_spaces = field.value != 0;
    if (field.number == 5) model.escapes_spaces = field.value != 0;
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes) {
  SentencePieceModel model;
  for (Fields field(bytes); field.next();) {
    if (field.number == 1) model.pieces.push_back(parse_piece(field.bytes));
    if (field.number == 2) parse_trainer(field.bytes, model);
    if (field.number == 3) parse_normalizer(field.bytes, model);
  }
  return model;
}

}  // namespace mhmoe::data
