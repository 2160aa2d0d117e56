// Token shards for reading: those that `mhmoe prepare` writes, Megatron's indexed datasets made elsewhere, and llm.c's
// .bin files. docs/data.md describes all three.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "core/file.h"
#include "data/block_hashes.h"
#include "data/shard_info.h"
#include "data/shard_layout.h"
#include "data/shard_writer.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

// A shard mapped for reading. Safe for use by many threads.
class Shard {
 public:
  // `path`: where PATH.idx exists, Megatron's PATH.bin and PATH.idx; else an llm.c file PATH or PATH.bin. Checks every
  // field of the index or header against the sizes of the files and, where PATH.json exists beside an index, that the
  // shard was made with `tokenizer` and that index and counts are the ones written then; warns where it does not.
  // Throws Error(kMissingInput) or Error(kBadData) naming file and offset.
  Shard(const std::string& path, const Tokenizer& tokenizer);

  const std::string& prefix() const { return prefix_; }
  int64_t token_count() const { return layout_.tokens; }
  // Absent for llm.c's files, which do not say.
  std::optional<int64_t> document_count() const { return layout_.documents; }
  // Equal for equal shards wherever they lie: a hash of the index or header and, where PATH.json exists, of all tokens.
  uint64_t identity() const { return identity_; }
  // Absent for shards that other programs wrote.
  const std::optional<ShardInfo>& info() const { return info_; }

  // Copies tokens [begin, begin + out.size()). Checks the checksums of blocks never read before. Throws
  // Error(kBadData) at a wrong checksum or an id outside the vocabulary, Error(kIo) when the file was changed, replaced
  // or truncated since it was opened, or cannot be read.
  void read(int64_t begin, std::span<int32_t> out) const;

 private:
  struct Files;
  Shard(const std::string& path, const Tokenizer& tokenizer, Files files);
  void check_info(const Tokenizer& tokenizer);
  void convert(int64_t begin, std::span<int32_t> out) const;

  std::string prefix_;
  MappedFile tokens_;
  ShardLayout layout_;
  int64_t vocab_size_;
  uint64_t index_hash_;
  uint64_t identity_;
  std::optional<ShardInfo> info_;
  mutable BlockChecks blocks_{{}, 1};
};

}  // namespace mhmoe::data
