// The byte-pair encoding of SentencePiece, several times as fast as the library: pairs are looked up by the ids of
// their halves, not by their text, and words that were met before by themselves.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "data/sentencepiece_model.h"

namespace mhmoe::data {

// A hash table from 64-bit keys, filled once.
class FlatTable {
 public:
  static constexpr uint64_t kAbsent = ~uint64_t{0};  // no key and no value
  using Entry = std::pair<uint64_t, uint64_t>;
  explicit FlatTable(const std::vector<Entry>& entries = {});
  uint64_t find(uint64_t key) const;

 private:
  struct Slot {
    uint64_t key = kAbsent, value = kAbsent;
  };
  size_t home(uint64_t key) const { return (key * 0x9e3779b97f4a7c15u) >> shift_; }
  std::vector<Slot> slots_;
  int shift_;
};

// Immutable: for many threads at once.
class BytePairEncoder {
 public:
  // Null where a model asks for more than this does: user-defined or unused pieces, normalisation, no byte pieces.
  static std::unique_ptr<BytePairEncoder> create(const SentencePieceModel& model);

  // Appends the ids that libsentencepiece gives for `text`: valid UTF-8 without U+2581, below 2 GiB. Long texts
  // are taken apart where no piece has the two characters side by side, so that memory does not grow with them.
  void encode(std::string_view text, std::vector<int32_t>& ids) const;

 private:
  struct Symbol;
  struct Scratch;
  explicit BytePairEncoder(const SentencePieceModel& model);
  int32_t symbol_of(uint32_t character) const;
  int32_t split(std::string_view text, int32_t begin, Scratch& scratch) const;
  void push_pair(Scratch& scratch, int32_t left) const;
  void merge(Scratch& scratch) const;
  void append_character(std::string_view text, int32_t begin, std::vector<int32_t>& ids) const;

  int32_t vocab_size_;
  FlatTable characters_;  // code point -> symbol: an id, or from vocab_size_ on a character that is no piece
  FlatTable neighbours_;  // pairs of characters that some piece has side by side
  FlatTable pairs_;       // left symbol << 32 | right symbol -> rank << 32 | id; small ranks are merged first
  std::vector<int32_t> ascii_;
  std::vector<int32_t> byte_ids_ = std::vector<int32_t>(256, -1);
};

}  // namespace mhmoe::data
