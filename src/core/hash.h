// XXH3-64, the one checksum of files, blocks and tensors, and how it is written: 16 hexadecimal digits. It finds
// damage; it does not stop a forger.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "core/api.h"

struct XXH3_state_s;

namespace mhmoe {

MHMOE_API uint64_t xxh3(const void* data, size_t bytes, uint64_t seed = 0);
inline uint64_t xxh3(std::string_view text) {
  return xxh3(text.data(), text.size());
}

// Of bytes that come in pieces; the same as of all at once.
class MHMOE_API HashStream {
 public:
  HashStream();
  ~HashStream();
  HashStream(HashStream&&) noexcept;
  HashStream& operator=(HashStream&&) noexcept;

  void update(const void* data, size_t bytes);
  void update(std::string_view text) { update(text.data(), text.size()); }
  uint64_t digest() const;  // of all since the construction or reset()
  void reset();

 private:
  std::unique_ptr<XXH3_state_s, void (*)(XXH3_state_s*)> state_;
};

MHMOE_API std::string to_hex(uint64_t hash);
// Absent unless `text` is what to_hex() writes: 16 digits, letters in lower case.
MHMOE_API std::optional<uint64_t> from_hex(std::string_view text);

}  // namespace mhmoe
