#include <simdjson.h>
#include <xxhash.h>

#include <charconv>
#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "data/shard_format.h"
#include "data/shards.h"

namespace mhmoe::data {
namespace {

using namespace shard_format;

// Fields of the index are not aligned.
template <class T>
T get(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

MappedFile open_part(const std::string& prefix, const char* suffix) {
  std::error_code unknown;  // then opening it tells why
  if (!std::filesystem::exists(prefix + suffix, unknown) && !unknown) {
    fail(ExitCode::kMissingInput,
         "{}{}: no such file; a token shard is PREFIX.bin and PREFIX.idx, made by `mhmoe prepare`", prefix, suffix);
  }
  return MappedFile(prefix + suffix);
}

}  // namespace

Shard::Shard(const std::string& prefix, const Tokenizer& tokenizer)
    : prefix_(prefix),
      index_(open_part(prefix, ".idx")),
      tokens_(open_part(prefix, ".bin")),
      vocab_size_(tokenizer.vocab_size()) {
  check_index();
  check_info(tokenizer);
}

void Shard::check_index() {
  const std::byte* data = index_.bytes().data();
  const auto size = static_cast<int64_t>(index_.bytes().size());
  const auto bad = [&](int64_t offset, const std::string& what) {
    fail(ExitCode::kBadData, "{}: offset {}: {}", index_.path(), offset, what);
  };
  if (size < kHeaderBytes) bad(size, fmt::format("file ends inside its header of {} bytes", kHeaderBytes));
  if (std::memcmp(data, kMagic.data(), kMagic.size()) != 0) bad(0, "expected the magic MMIDIDX; not a token shard");
  if (const auto version = get<uint64_t>(data + kVersionAt); version != kVersion) {
    bad(kVersionAt, fmt::format("expected version {}, found {}", kVersion, version));
  }
  const auto dtype = get<uint8_t>(data + kDTypeAt);
  if (dtype != kUint16 && dtype != kInt32) {
    bad(kDTypeAt, fmt::format("expected dtype code {} (uint16) or {} (int32), found {}", kUint16, kInt32, dtype));
  }
  token_bytes_ = dtype == kUint16 ? 2 : 4;

  const auto count = get<int64_t>(data + kCountAt);
  const auto entries = get<int64_t>(data + kDocumentEntriesAt);
  // Bounded first, so that the sum below cannot overflow.
  if (count < 0 || count > size / 12) bad(kCountAt, fmt::format("{} sequences do not fit in {} bytes", count, size));
  if (entries < 1 || entries > size / 8) {
    bad(kDocumentEntriesAt, fmt::format("{} document entries do not fit in {} bytes", entries, size));
  }
  const int64_t expected = kHeaderBytes + count * 12 + entries * 8;
  if (size != expected) {
    bad(kCountAt, fmt::format("{} sequences and {} document entries take {} bytes, the file has {}", count, entries,
                              expected, size));
  }
  check_pointers(data + kHeaderBytes, count);

  check_documents(kHeaderBytes + count * 12, entries, count);
  document_count_ = entries - 1;
  token_count_ = static_cast<int64_t>(tokens_.bytes().size()) / token_bytes_;
}

void Shard::check_pointers(const std::byte* sizes, int64_t count) const {
  const std::byte* pointers = sizes + count * 4;
  int64_t expected = 0;
  for (int64_t i = 0; i < count; ++i) {
    const auto length = get<int32_t>(sizes + i * 4);
    const auto pointer = get<int64_t>(pointers + i * 8);
    if (length < 0 || pointer != expected) {
      fail(ExitCode::kBadData, "{}: offset {}: sequence {} has {} tokens at byte {}, expected byte {}", index_.path(),
           kHeaderBytes + count * 4 + i * 8, i, length, pointer, expected);
    }
    expected += length * token_bytes_;
  }
  if (const auto size = static_cast<int64_t>(tokens_.bytes().size()); size != expected) {
    fail(ExitCode::kBadData, "{}: {} bytes, expected {} by {}; copy or prepare the shard again", tokens_.path(), size,
         expected, index_.path());
  }
}

void Shard::check_documents(int64_t offset, int64_t entries, int64_t count) const {
  int64_t previous = 0;
  for (int64_t i = 0; i < entries; ++i) {
    const auto entry = get<int64_t>(index_.bytes().data() + offset + i * 8);
    const bool rises = i == 0 ? entry == 0 : entry >= previous && entry <= count;
    if (!rises || (i + 1 == entries && entry != count)) {
      fail(ExitCode::kBadData, "{}: offset {}: document entry {} is {}; entries rise from 0 to {}", index_.path(),
           offset + i * 8, i, entry, count);
    }
    previous = entry;
  }
}

void Shard::check_info(const Tokenizer& tokenizer) {
  const std::string path = prefix_ + ".json";
  std::error_code unknown;  // then opening it tells why
  if (!std::filesystem::exists(path, unknown) && !unknown) return;
  const InputFile file(path);
  std::string text(file.size(), '\0');
  file.read(text.data(), text.size(), 0);
  ShardInfo info;
  std::string_view name, hash;
  simdjson::dom::parser parser;
  simdjson::dom::element json;
  const bool read = !parser.parse(text).get(json) && !json["tokens"].get(info.tokens) &&
                    !json["documents"].get(info.documents) && !json["utf8_bytes"].get(info.utf8_bytes) &&
                    !json["vocab_size"].get(info.vocab_size) && !json["tokenizer"].get(name) &&
                    !json["tokenizer_hash"].get(hash);
  if (!read || std::from_chars(hash.begin(), hash.end(), info.tokenizer_hash, 16).ptr != hash.end()) {
    fail(ExitCode::kBadData,
         "{}: expected the keys tokens, documents, utf8_bytes, vocab_size, tokenizer and "
         "tokenizer_hash; prepare the shard again",
         path);
  }
  info.tokenizer = name;
  if (info.tokens != token_count_ || info.documents != document_count_) {
    fail(ExitCode::kBadData, "{}: {} tokens in {} documents, but the shard has {} in {}; prepare the shard again", path,
         info.tokens, info.documents, token_count_, document_count_);
  }
  if (info.tokenizer_hash != tokenizer.hash()) {
    fail(ExitCode::kBadData,
         "{}: the shard was made with another tokenizer ({} of {} ids, hash {:016x}) than the one given "
         "({} of {} ids, hash {:016x}); name that tokenizer or prepare the shard again",
         path, info.tokenizer, info.vocab_size, info.tokenizer_hash, tokenizer.name(), tokenizer.vocab_size(),
         tokenizer.hash());
  }
  info_ = info;
  info_hash_ = XXH3_64bits(text.data(), text.size());
}

uint64_t Shard::identity() const {
  return XXH3_64bits_withSeed(index_.bytes().data(), index_.bytes().size(), info_hash_);
}

void Shard::read(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  MHMOE_CHECK(begin >= 0 && begin + count <= token_count_, "{}: tokens [{}, {}) of {}", prefix_, begin, begin + count,
              token_count_);
  const std::byte* from = tokens_.bytes().data() + begin * token_bytes_;
  if (token_bytes_ == 4) {
    std::memcpy(out.data(), from, out.size_bytes());
  } else {
    const auto* ids = reinterpret_cast<const uint16_t*>(from);
    for (int64_t i = 0; i < count; ++i) out[i] = ids[i];
  }
  for (int64_t i = 0; i < count; ++i) {
    if (out[i] < 0 || out[i] >= vocab_size_) {
      fail(ExitCode::kBadData,
           "{}: offset {}: token id {} outside the vocabulary of {}; wrong tokenizer or damaged file", tokens_.path(),
           (begin + i) * token_bytes_, out[i], vocab_size_);
    }
  }
}

}  // namespace mhmoe::data
