#include "data/shard_info.h"

#include <algorithm>

#include "core/hash.h"
#include "data/sealed_json.h"

namespace mhmoe::data {
namespace {

constexpr int64_t kFormatVersion = 1;

TokenType type_of(const json::Value& object) {
  const std::string& name = string_member(object, "dtype");
  for (const TokenType type : {TokenType::kUInt16, TokenType::kInt32}) {
    if (to_string(type) == name) return type;
  }
  fail(ExitCode::kBadData, "{}: dtype: expected uint16 or int32, found {}", object.where(), name);
}

}  // namespace

json::Value to_json(const ShardInfo& info) {
  json::Value object = json::Value::object();
  object.add("format_version", kFormatVersion);
  object.add("tokens", info.tokens);
  object.add("documents", info.documents);
  object.add("utf8_bytes", info.utf8_bytes);
  object.add("dtype", to_string(info.type));
  object.add("vocab_size", info.vocab_size);
  object.add("tokenizer", info.tokenizer);
  object.add("tokenizer_hash", to_hex(info.tokenizer_hash));
  object.add("inputs_hash", to_hex(info.inputs_hash));
  object.add("index_hash", to_hex(info.index_hash));
  object.add("block_bytes", info.block_bytes);
  json::Value& hashes = object.add("block_hashes", json::Value::array());
  for (const uint64_t hash : info.block_hashes) hashes.add(to_hex(hash));
  return object;
}

ShardInfo shard_info_of(const json::Value& object) {
  if (const int64_t version = count_member(object, "format_version"); version != kFormatVersion) {
    fail(ExitCode::kBadData, "{}: written in format version {}, this program reads {}; prepare the shard again",
         object.where(), version, kFormatVersion);
  }
  ShardInfo info{.tokens = count_member(object, "tokens"),
                 .documents = count_member(object, "documents"),
                 .utf8_bytes = count_member(object, "utf8_bytes"),
                 .vocab_size = count_member(object, "vocab_size"),
                 .type = type_of(object),
                 .tokenizer = string_member(object, "tokenizer"),
                 .tokenizer_hash = hash_member(object, "tokenizer_hash"),
                 .inputs_hash = hash_member(object, "inputs_hash"),
                 .index_hash = hash_member(object, "index_hash"),
                 .block_bytes = count_member(object, "block_bytes"),
                 .block_hashes = hashes_member(object, "block_hashes")};
  // A power of two, which a token never straddles.
  if (info.block_bytes < 8 || info.block_bytes > (int64_t{1} << 30) ||
      (info.block_bytes & (info.block_bytes - 1)) != 0) {
    fail(ExitCode::kBadData, "{}: block_bytes: {} is not a power of two from 8 to 2^30", object.where(),
         info.block_bytes);
  }
  return info;
}

ShardInfo parse_shard_info(std::string_view text, const std::string& path) {
  return shard_info_of(unseal(text, path, "prepare the shard again"));
}

}  // namespace mhmoe::data
