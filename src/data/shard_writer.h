// Writes the token shards of `mhmoe prepare`, in the layout of Megatron's indexed datasets: PREFIX.bin holds the ids of
// all documents one after another, PREFIX.idx says where each begins, PREFIX.json how they were made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/append_file.h"
#include "core/file.h"
#include "data/block_hashes.h"
#include "data/shard_info.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

// While a shard is being made, after its prefix.
inline constexpr const char* kPartialTokens = ".bin.partial";
inline constexpr const char* kPartialSizes = ".sizes.partial";

// A shard appears when finish() is called; until then there are PREFIX.bin.partial, with the tokens, and
// PREFIX.sizes.partial, with the length of every document. Ids take two bytes where the vocabulary is below 65,500,
// else four. Memory does not grow with the shard, but for 8 bytes a MiB of tokens.
class ShardWriter {
 public:
  // A new shard, in place of whatever is there.
  ShardWriter(const std::string& prefix, const Tokenizer& tokenizer, uint64_t inputs_hash = 0);
  // Goes on after `durable`, what sync() returned. Throws Error(kBadData) unless the partial files hold all of it with
  // the checksums that it has.
  ShardWriter(const std::string& prefix, const Tokenizer& tokenizer, const ShardInfo& durable);
  // Removes the partial files, unless keep_partial() or finish() was called; a constructor that throws leaves them.
  ~ShardWriter();
  ShardWriter(const ShardWriter&) = delete;
  ShardWriter& operator=(const ShardWriter&) = delete;

  // One document; EOS is appended here. utf8_bytes: of its text.
  void add_document(std::span<const int32_t> tokens, int64_t utf8_bytes);
  // All documents so far are on disk when it returns, in the partial files; the index_hash it gives is that of the
  // lengths.
  ShardInfo sync();
  void keep_partial() { keep_ = true; }
  ShardInfo finish();

 private:
  void lock();
  void flush();
  void read_back(const ShardInfo& durable);
  uint64_t write_index();

  std::string prefix_;
  int32_t eos_;
  ShardInfo info_;
  AppendFile tokens_, sizes_;
  std::optional<InputFile> lock_;  // on the tokens: one writer at a time
  BlockHasher blocks_;
  HashStream size_hash_;
  std::vector<std::byte> token_buffer_;
  std::vector<int32_t> size_buffer_;
  bool keep_ = false;
};

}  // namespace mhmoe::data
