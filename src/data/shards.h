// Token shards in the layout of Megatron's indexed datasets: PREFIX.bin holds the ids of all documents one after
// another, PREFIX.idx says where each begins. PREFIX.json, ours, says how they were made.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "data/tokenizer.h"

namespace mhmoe::data {

// What PREFIX.json holds.
struct ShardInfo {
  int64_t tokens = 0;  // EOS included
  int64_t documents = 0;
  int64_t utf8_bytes = 0;  // of the documents' text
  int64_t vocab_size = 0;
  std::string tokenizer;  // Tokenizer::name()
  uint64_t tokenizer_hash = 0;
};

// A shard mapped for reading. Safe for use by many threads.
class Shard {
 public:
  // Checks every field of the index against the sizes of both files, and, where PREFIX.json exists, that the shard was
  // made with `tokenizer`. Throws Error(kMissingInput) or Error(kBadData) naming file and offset.
  Shard(const std::string& prefix, const Tokenizer& tokenizer);

  const std::string& prefix() const { return prefix_; }
  int64_t token_count() const { return token_count_; }
  int64_t document_count() const { return document_count_; }
  // A hash of the index and, where PREFIX.json exists, of that: equal for equal shards wherever they lie.
  uint64_t identity() const;
  // Absent for shards that other programs wrote.
  const std::optional<ShardInfo>& info() const { return info_; }

  // Copies tokens [begin, begin + out.size()); throws Error(kBadData) at an id outside the vocabulary.
  void read(int64_t begin, std::span<int32_t> out) const;

 private:
  void check_index();
  void check_pointers(const std::byte* sizes, int64_t count) const;
  void check_documents(int64_t offset, int64_t entries, int64_t count) const;
  void check_info(const Tokenizer& tokenizer);

  std::string prefix_;
  MappedFile index_;
  MappedFile tokens_;
  int64_t vocab_size_;
  int64_t token_count_ = 0;
  int64_t document_count_ = 0;
  int64_t token_bytes_ = 0;
  std::optional<ShardInfo> info_;
  uint64_t info_hash_ = 0;  // of the text of PREFIX.json
};

// Writes a shard; its three files appear together when finish() is called. Ids take two bytes where the vocabulary is
// below 65,500, else four. Holds four bytes a document in memory.
class ShardWriter {
 public:
  ShardWriter(const std::string& prefix, const Tokenizer& tokenizer);

  // One document; EOS is appended here. utf8_bytes: of its text.
  void add_document(std::span<const int32_t> tokens, int64_t utf8_bytes);
  ShardInfo finish();

 private:
  void write_index();
  void write_info();

  std::string prefix_;
  int32_t eos_;
  bool wide_;
  ShardInfo info_;
  AtomicFile tokens_;
  std::vector<int32_t> sizes_;
  std::vector<uint16_t> narrow_;  // reused by add_document()
};

}  // namespace mhmoe::data
