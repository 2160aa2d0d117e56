// Where the tokens of a shard lie: what a Megatron index or an llm.c header says, every field of it checked.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "data/token_type.h"

namespace mhmoe::data {

struct ShardLayout {
  TokenType type = TokenType::kUInt16;
  int64_t first_byte = 0;  // of the tokens in the .bin file
  int64_t tokens = 0;
  std::optional<int64_t> documents;  // llm.c's files do not say

  int64_t end_byte() const { return first_byte + tokens * bytes_of(type); }
};

// Copies bytes [offset, offset + bytes) of a file; asked only for bytes within its size.
using CopyBytes = std::function<void(void* out, size_t bytes, int64_t offset)>;

// A .idx file of `size` bytes, read in pieces of at most 64 KiB; `path` is for messages.
// Throws Error(kBadData) naming the offset and the entry.
ShardLayout parse_megatron_index(const CopyBytes& copy, int64_t size, const std::string& path);

// The beginning of an llm.c file of `size` bytes; `header` holds its first 1,024 bytes, or all there are.
ShardLayout parse_llmc_header(std::span<const std::byte> header, int64_t size, const std::string& path);

}  // namespace mhmoe::data
