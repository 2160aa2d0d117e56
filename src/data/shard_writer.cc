#include <limits>

#include "core/error.h"
#include "data/shard_format.h"
#include "data/shards.h"

namespace mhmoe::data {
namespace {

using namespace shard_format;

template <class T>
void put(AtomicFile& file, T value) {
  file.write(&value, sizeof(value));
}

}  // namespace

ShardWriter::ShardWriter(const std::string& prefix, const Tokenizer& tokenizer)
    : prefix_(prefix),
      eos_(tokenizer.eos()),
      wide_(tokenizer.vocab_size() >= kNarrowVocabLimit),
      info_{.vocab_size = tokenizer.vocab_size(), .tokenizer = tokenizer.name(), .tokenizer_hash = tokenizer.hash()},
      tokens_(prefix + ".bin") {}

void ShardWriter::add_document(std::span<const int32_t> tokens, int64_t utf8_bytes) {
  if (tokens.size() >= std::numeric_limits<int32_t>::max()) {
    fail(ExitCode::kBadData, "{}: document {} has {} tokens; the format allows 2147483646", prefix_, info_.documents,
         tokens.size());
  }
  if (wide_) {
    tokens_.write(tokens.data(), tokens.size_bytes());
    put<int32_t>(tokens_, eos_);
  } else {
    narrow_.assign(tokens.begin(), tokens.end());
    narrow_.push_back(static_cast<uint16_t>(eos_));
    tokens_.write(narrow_.data(), narrow_.size() * sizeof(uint16_t));
  }
  sizes_.push_back(static_cast<int32_t>(tokens.size() + 1));
  info_.tokens += sizes_.back();
  info_.utf8_bytes += utf8_bytes;
  ++info_.documents;
}

// The index last: it is what makes a shard.
ShardInfo ShardWriter::finish() {
  tokens_.commit();
  write_info();
  write_index();
  return info_;
}

void ShardWriter::write_index() {
  AtomicFile index(prefix_ + ".idx");
  const auto count = static_cast<int64_t>(sizes_.size());
  index.write(kMagic.data(), kMagic.size());
  put<uint64_t>(index, kVersion);
  put<uint8_t>(index, wide_ ? kInt32 : kUint16);
  put<int64_t>(index, count);
  put<int64_t>(index, count + 1);
  index.write(sizes_.data(), sizes_.size() * sizeof(int32_t));
  int64_t pointer = 0;
  for (const int32_t size : sizes_) {
    put<int64_t>(index, pointer);
    pointer += int64_t{size} * (wide_ ? 4 : 2);
  }
  for (int64_t document = 0; document <= count; ++document) put<int64_t>(index, document);
  index.commit();
}

void ShardWriter::write_info() {
  AtomicFile file(prefix_ + ".json");
  file.write(fmt::format(
      "{{\"tokens\": {}, \"documents\": {}, \"utf8_bytes\": {}, \"vocab_size\": {}, \"tokenizer\": \"{}\", "
      "\"tokenizer_hash\": \"{:016x}\"}}\n",
      info_.tokens, info_.documents, info_.utf8_bytes, info_.vocab_size, info_.tokenizer, info_.tokenizer_hash));
  file.commit();
}

}  // namespace mhmoe::data
