#include "core/hash.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <charconv>
#include <new>

namespace mhmoe {
namespace {

constexpr size_t kDigits = 16;

}  // namespace

uint64_t xxh3(const void* data, size_t bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(data, bytes, seed);
}

HashStream::HashStream() : state_(XXH3_createState(), [](XXH3_state_t* state) { XXH3_freeState(state); }) {
  if (state_ == nullptr) throw std::bad_alloc();
  reset();
}

HashStream::~HashStream() = default;
HashStream::HashStream(HashStream&&) noexcept = default;
HashStream& HashStream::operator=(HashStream&&) noexcept = default;

void HashStream::update(const void* data, size_t bytes) {
  XXH3_64bits_update(state_.get(), data, bytes);
}

uint64_t HashStream::digest() const {
  return XXH3_64bits_digest(state_.get());
}

void HashStream::reset() {
  XXH3_64bits_reset(state_.get());
}

std::string to_hex(uint64_t hash) {
  return fmt::format("{:016x}", hash);
}

std::optional<uint64_t> from_hex(std::string_view text) {
  const auto is_digit = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (text.size() != kDigits || !std::all_of(text.begin(), text.end(), is_digit)) return std::nullopt;
  uint64_t hash = 0;
  std::from_chars(text.data(), text.data() + text.size(), hash, 16);
  return hash;
}

}  // namespace mhmoe
