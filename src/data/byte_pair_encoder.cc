#include "data/byte_pair_encoder.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <numeric>
#include <string>
#include <unordered_map>

#include "core/error.h"

namespace mhmoe::data {
namespace {

constexpr uint32_t kSpaceMark = 0x2581;  // how pieces write a space
constexpr int32_t kNoSymbol = -1;

struct Character {
  uint32_t code;
  int bytes;
};

// The character at the beginning of valid UTF-8.
Character first_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  if (lead < 0xe0 || text.size() < 3) return {(lead & 0x1f) << 6 | (byte(1) & 0x3f), 2};
  if (lead < 0xf0 || text.size() < 4) return {(lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f), 3};
  return {(lead & 7) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f), 4};
}

uint64_t pair_key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

// Pieces by falling score; equal scores have equal ranks.
std::vector<uint32_t> ranks_of(const std::vector<SentencePieceModel::Piece>& pieces) {
  std::vector<size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return pieces[a].score > pieces[b].score; });
  std::vector<uint32_t> ranks(pieces.size());
  for (size_t i = 1; i < order.size(); ++i) {
    ranks[order[i]] = ranks[order[i - 1]] + (pieces[order[i]].score < pieces[order[i - 1]].score ? 1 : 0);
  }
  return ranks;
}

}  // namespace

FlatTable::FlatTable(const std::vector<Entry>& entries)
    : slots_(std::bit_ceil(2 * entries.size() + 2)), shift_(64 - std::countr_zero(slots_.size())) {
  for (const auto& [key, value] : entries) {
    size_t at = home(key);
    while (slots_[at].key != kAbsent && slots_[at].key != key) at = (at + 1) & (slots_.size() - 1);
    slots_[at] = {key, value};
  }
}

uint64_t FlatTable::find(uint64_t key) const {
  size_t at = home(key);
  while (slots_[at].key != key && slots_[at].key != kAbsent) at = (at + 1) & (slots_.size() - 1);
  return slots_[at].value;
}

struct BytePairEncoder::Symbol {
  int32_t id;          // kNoSymbol: a character that no piece holds
  int32_t begin;       // in the text
  int32_t prev, next;  // -1: none
};

struct BytePairEncoder::Scratch {
  struct Pair {
    uint64_t order;  // rank << 32 | left: of equal ranks the leftmost goes first
    int32_t left_id, right_id, id;
  };
  static bool later(const Pair& a, const Pair& b) { return a.order > b.order; }
  std::vector<Symbol> symbols;
  std::vector<Pair> pairs;  // a heap
};

std::unique_ptr<BytePairEncoder> BytePairEncoder::create(const SentencePieceModel& model) {
  using Type = SentencePieceModel::Type;
  int bytes = 0;
  for (const auto& piece : model.pieces) {
    const bool is_character = !piece.text.empty() && first_character(piece.text).bytes == std::ssize(piece.text);
    bytes += piece.type == Type::kByte ? 1 : 0;
    if (piece.text.empty() || piece.type == Type::kUserDefined || piece.type == Type::kUnused) return nullptr;
    if (piece.type != Type::kNormal && is_character) return nullptr;  // it would stand for that character
  }
  if (!model.is_bpe || !model.byte_fallback || bytes != 256 || !model.keeps_text()) return nullptr;
  return std::unique_ptr<BytePairEncoder>(new BytePairEncoder(model));
}

BytePairEncoder::BytePairEncoder(const SentencePieceModel& model)
    : vocab_size_(static_cast<int32_t>(model.pieces.size())) {
  std::unordered_map<std::string_view, int32_t> symbols;
  for (int32_t id = 0; id < vocab_size_; ++id) {
    const auto& piece = model.pieces[id];
    if (piece.type == SentencePieceModel::Type::kNormal) symbols.emplace(piece.text, id);
    if (piece.type == SentencePieceModel::Type::kByte) {  // written <0x0A>
      byte_ids_[std::stoi(piece.text.substr(3, 2), nullptr, 16)] = id;
    }
  }
  const auto for_characters = [&](auto&& f) {  // f(piece's id, begin and bytes of the character)
    for (int32_t id = 0; id < vocab_size_; ++id) {
      const std::string& text = model.pieces[id].text;
      if (model.pieces[id].type != SentencePieceModel::Type::kNormal) continue;
      for (size_t at = 0, bytes = 0; at < text.size(); at += bytes) {
        bytes = static_cast<size_t>(first_character(std::string_view{text}.substr(at)).bytes);
        f(id, at, bytes);
      }
    }
  };
  int32_t next = vocab_size_;
  std::vector<FlatTable::Entry> characters, neighbours, pairs;
  int32_t previous = kNoSymbol;
  for_characters([&](int32_t id, size_t begin, size_t bytes) {
    const std::string_view character = std::string_view{model.pieces[id].text}.substr(begin, bytes);
    const auto [symbol, added] = symbols.emplace(character, next);
    if (added) ++next;
    if (added || symbol->second == id) characters.emplace_back(first_character(character).code, symbol->second);
    if (begin > 0) neighbours.emplace_back(pair_key(previous, symbol->second), 1);
    previous = symbol->second;
  });
  characters_ = FlatTable(characters);
  neighbours_ = FlatTable(neighbours);
  const std::vector<uint32_t> ranks = ranks_of(model.pieces);
  for_characters([&](int32_t id, size_t begin, size_t) {
    const std::string_view text = model.pieces[id].text;
    const auto left = symbols.find(text.substr(0, begin)), right = symbols.find(text.substr(begin));
    if (begin == 0 || left == symbols.end() || right == symbols.end()) return;
    pairs.emplace_back(pair_key(left->second, right->second), static_cast<uint64_t>(ranks[id]) << 32 | id);
  });
  pairs_ = FlatTable(pairs);
  for (uint32_t code = 0; code < 128; ++code) {
    ascii_.push_back(static_cast<int32_t>(characters_.find(code == ' ' ? kSpaceMark : code)));
  }
}

int32_t BytePairEncoder::symbol_of(uint32_t character) const {
  return character < 128 ? ascii_[character] : static_cast<int32_t>(characters_.find(character));
}

// Fills `symbols` with the characters from `begin` on; returns where it stopped.
int32_t BytePairEncoder::split(std::string_view text, int32_t begin, Scratch& scratch) const {
  constexpr int32_t kEnough = 1024;
  scratch.symbols.clear();
  while (begin < std::ssize(text)) {
    const Character character = first_character(text.substr(static_cast<size_t>(begin)));
    const int32_t id = symbol_of(character.code);
    const auto i = static_cast<int32_t>(scratch.symbols.size());
    if (i >= kEnough && neighbours_.find(pair_key(scratch.symbols.back().id, id)) == FlatTable::kAbsent) break;
    scratch.symbols.push_back({.id = id, .begin = begin, .prev = i - 1, .next = i + 1});
    begin += character.bytes;
  }
  scratch.symbols.back().next = -1;
  return begin;
}

void BytePairEncoder::push_pair(Scratch& scratch, int32_t left) const {
  if (left < 0 || scratch.symbols[left].next < 0) return;
  const int32_t a = scratch.symbols[left].id, b = scratch.symbols[scratch.symbols[left].next].id;
  if (a == kNoSymbol || b == kNoSymbol) return;
  const uint64_t found = pairs_.find(pair_key(a, b));
  if (found == FlatTable::kAbsent) return;
  const uint64_t order = (found & 0xffffffff00000000u) | static_cast<uint32_t>(left);
  scratch.pairs.push_back({.order = order, .left_id = a, .right_id = b, .id = static_cast<int32_t>(found)});
  std::push_heap(scratch.pairs.begin(), scratch.pairs.end(), Scratch::later);
}

void BytePairEncoder::merge(Scratch& scratch) const {
  scratch.pairs.clear();
  for (int32_t i = 0; i + 1 < std::ssize(scratch.symbols); ++i) push_pair(scratch, i);
  while (!scratch.pairs.empty()) {
    const Scratch::Pair pair = scratch.pairs.front();
    std::pop_heap(scratch.pairs.begin(), scratch.pairs.end(), Scratch::later);
    scratch.pairs.pop_back();
    const auto i = static_cast<int32_t>(pair.order & 0xffffffffu);
    Symbol& left = scratch.symbols[i];
    if (left.id != pair.left_id || left.next < 0) continue;  // merged since
    Symbol& right = scratch.symbols[left.next];
    if (right.id != pair.right_id) continue;
    left.id = pair.id;
    left.next = right.next;
    right.id = kNoSymbol;
    if (left.next >= 0) scratch.symbols[left.next].prev = i;
    push_pair(scratch, left.prev);
    push_pair(scratch, i);
  }
}

void BytePairEncoder::append_character(std::string_view text, int32_t begin, std::vector<int32_t>& ids) const {
  std::string_view character = text.substr(static_cast<size_t>(begin));
  character =
      character[0] == ' ' ? "\xe2\x96\x81" : character.substr(0, static_cast<size_t>(first_character(character).bytes));
  for (const char c : character) ids.push_back(byte_ids_[static_cast<unsigned char>(c)]);
}

void BytePairEncoder::encode(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return;
  MHMOE_CHECK(text.size() < size_t{1} << 31, "text of {} bytes", text.size());
  thread_local Scratch scratch;
  for (int32_t begin = 0; begin < std::ssize(text);) {
    begin = split(text, begin, scratch);
    merge(scratch);
    for (int32_t i = 0; i >= 0; i = scratch.symbols[i].next) {
      const Symbol& symbol = scratch.symbols[i];
      if (symbol.id >= 0 && symbol.id < vocab_size_) {
        ids.push_back(symbol.id);
      } else {
        append_character(text, symbol.begin, ids);
      }
    }
  }
  constexpr size_t kKeptSymbols = size_t{1} << 20;
  if (scratch.symbols.capacity() > kKeptSymbols) scratch = {};
}

}  // namespace mhmoe::data
