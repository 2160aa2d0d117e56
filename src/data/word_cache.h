// What a thread has encoded before with one model: short words and their ids, a cache line each.
#pragma once

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

namespace mhmoe::data {

// 4 MiB; a word takes the place of another one, so the memory is bounded whatever the text.
class WordCache {
 public:
  static constexpr size_t kLongest = 31;  // bytes of a word

  // Empty unless the word was put in for the same model. Words are not empty.
  std::span<const int32_t> find(uint64_t model, std::string_view word) {
    if (model != model_ || slots_.empty()) {
      slots_.assign(kSlots, {});
      model_ = model;
    }
    key_ = {};
    std::memcpy(key_.data(), word.data(), word.size());
    key_[3] |= static_cast<uint64_t>(word.size()) << 56;
    slot_ = &slots_[slot_of(key_)];
    return slot_->key == key_ ? std::span<const int32_t>(slot_->ids.data(), slot_->count) : std::span<const int32_t>();
  }
  // The word that find() was asked for last.
  void put(std::span<const int32_t> ids) {
    if (ids.size() > slot_->ids.size()) return;
    slot_->key = key_;
    slot_->count = static_cast<uint32_t>(ids.size());
    std::memcpy(slot_->ids.data(), ids.data(), ids.size_bytes());
  }

 private:
  static constexpr int kSlotBits = 16;
  static constexpr size_t kSlots = size_t{1} << kSlotBits;
  using Key = std::array<uint64_t, 4>;  // the word, zeros, and in the last byte its length
  struct alignas(64) Slot {
    Key key{};
    uint32_t count = 0;
    std::array<int32_t, 7> ids{};
  };
  static size_t slot_of(const Key& key) {
    uint64_t mixed = key[0] * 0x9e3779b97f4a7c15u ^ key[1] * 0xc2b2ae3d27d4eb4fu ^ key[2] * 0x165667b19e3779f9u ^
                     key[3] * 0x27d4eb2f165667c5u;
    mixed = (mixed ^ mixed >> 32) * 0x9e3779b97f4a7c15u;
    return mixed >> (64 - kSlotBits);
  }

  std::vector<Slot> slots_;
  uint64_t model_ = 0;
  Key key_{};
  Slot* slot_ = nullptr;
};

}  // namespace mhmoe::data
