// What PREFIX.json says about the token shard PREFIX.bin and PREFIX.idx that `mhmoe prepare` wrote.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "data/token_type.h"

namespace mhmoe::data {

struct ShardInfo {
  int64_t tokens = 0;  // EOS included
  int64_t documents = 0;
  int64_t utf8_bytes = 0;  // of the documents' text
  int64_t vocab_size = 0;
  TokenType type = TokenType::kUInt16;
  std::string tokenizer;  // Tokenizer::name()
  uint64_t tokenizer_hash = 0;
  uint64_t inputs_hash = 0;  // of the names, sizes and times of the files it was made from, and how they were read
  uint64_t index_hash = 0;   // XXH3-64 of PREFIX.idx
  int64_t block_bytes = 0;
  std::vector<uint64_t> block_hashes;  // XXH3-64 of every block_bytes of PREFIX.bin; the last block may be shorter
};

json::Value to_json(const ShardInfo& info);
// The text of PREFIX.json. Throws Error(kBadData) with the line.
ShardInfo parse_shard_info(std::string_view text, const std::string& path);
ShardInfo shard_info_of(const json::Value& object);

}  // namespace mhmoe::data
