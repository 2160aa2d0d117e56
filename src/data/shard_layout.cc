#include "data/shard_layout.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "data/shard_format.h"

namespace mhmoe::data {
namespace {

using namespace shard_format;

template <class T>
T get(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Entries of one array of an index, a piece at a time.
template <class T>
class Entries {
 public:
  Entries(const CopyBytes& copy, int64_t begin, int64_t count) : copy_(copy), begin_(begin), count_(count) {}
  // In order of rising i.
  T operator[](int64_t i) {
    if (i >= first_ + static_cast<int64_t>(piece_.size())) {
      first_ = i;
      piece_.resize(static_cast<size_t>(std::min<int64_t>(kPiece, count_ - i)));
      copy_(piece_.data(), piece_.size() * sizeof(T), offset(i));
    }
    return piece_[i - first_];
  }
  int64_t offset(int64_t i) const { return begin_ + i * static_cast<int64_t>(sizeof(T)); }

 private:
  static constexpr int64_t kPiece = 8192;
  const CopyBytes& copy_;
  int64_t begin_, count_;
  int64_t first_ = 0;
  std::vector<T> piece_;
};

class IndexParser {
 public:
  IndexParser(const CopyBytes& copy, int64_t size, const std::string& path) : copy_(copy), size_(size), path_(path) {}

  ShardLayout parse() {
    parse_header();
    const bool modes = size_ == expected_size() + count_;
    if (size_ != expected_size() && !modes) {
      bad(kCountAt, "{} sequences and {} document entries take {} bytes, the file has {}", count_, entries_,
          expected_size(), size_);
    }
    const int64_t tokens = check_pointers();
    check_documents();
    return {.type = type_, .first_byte = 0, .tokens = tokens, .documents = entries_ - 1};
  }

 private:
  template <class... Args>
  [[noreturn]] void bad(int64_t offset, fmt::format_string<Args...> what, Args&&... args) const {
    fail(ExitCode::kBadData, "{}: offset {}: {}", path_, offset, fmt::format(what, std::forward<Args>(args)...));
  }

  int64_t expected_size() const { return kHeaderBytes + count_ * 12 + entries_ * 8; }

  void parse_header() {
    std::array<std::byte, kHeaderBytes> header;
    if (size_ < kHeaderBytes) bad(size_, "the file ends inside its header of {} bytes", kHeaderBytes);
    copy_(header.data(), header.size(), 0);
    if (std::memcmp(header.data(), kMagic.data(), kMagic.size()) != 0) {
      bad(0, "expected the magic MMIDIDX; not the index of a token shard");
    }
    const auto version = get<uint64_t>(header.data() + kVersionAt);
    if (version == __builtin_bswap64(kVersion)) {
      bad(kVersionAt, "the version is {} in big-endian byte order; indexes are little endian", kVersion);
    }
    if (version != kVersion) bad(kVersionAt, "expected version {}, found {}", kVersion, version);
    type_ = type_of_code(get<uint8_t>(header.data() + kDTypeAt));
    count_ = get<int64_t>(header.data() + kCountAt);
    entries_ = get<int64_t>(header.data() + kEntriesAt);
    // Bounded first, so that expected_size() cannot overflow.
    if (count_ < 0 || count_ > size_ / 12) bad(kCountAt, "{} sequences do not fit in {} bytes", count_, size_);
    if (entries_ < 1 || entries_ > size_ / 8) {
      bad(kEntriesAt, "{} document entries do not fit in {} bytes", entries_, size_);
    }
  }

  TokenType type_of_code(uint8_t code) const {
    switch (code) {
      case 1:
        return TokenType::kUInt8;
      case 2:
        return TokenType::kInt8;
      case 3:
        return TokenType::kInt16;
      case kInt32:
        return TokenType::kInt32;
      case 5:
        return TokenType::kInt64;
      case kUint16:
        return TokenType::kUInt16;
      default:
        bad(kDTypeAt,
            "expected the dtype code of integers, 1 (uint8), 2 (int8), 3 (int16), 4 (int32), 5 (int64) or 8 (uint16), "
            "found {}",
            code);
    }
  }

  // The sequences must follow one another without gap or overlap. Returns the number of tokens.
  int64_t check_pointers() {
    Entries<int32_t> sizes(copy_, kHeaderBytes, count_);
    Entries<int64_t> pointers(copy_, kHeaderBytes + count_ * 4, count_);
    const int64_t width = bytes_of(type_);
    int64_t expected = 0;
    for (int64_t i = 0; i < count_; ++i) {
      const int64_t length = sizes[i], pointer = pointers[i];
      if (length < 0) bad(sizes.offset(i), "sequence {} has {} tokens", i, length);
      if (pointer != expected) {
        bad(pointers.offset(i), "sequence {} begins at byte {}, expected byte {}: they follow one another", i, pointer,
            expected);
      }
      if (__builtin_add_overflow(expected, length * width, &expected)) {
        bad(sizes.offset(i), "sequence {} ends past byte 2^63", i);
      }
    }
    return expected / width;
  }

  void check_documents() {
    Entries<int64_t> documents(copy_, kHeaderBytes + count_ * 12, entries_);
    int64_t previous = 0;
    for (int64_t i = 0; i < entries_; ++i) {
      const int64_t entry = documents[i];
      const bool rises = i == 0 ? entry == 0 : entry >= previous && entry <= count_;
      if (!rises || (i + 1 == entries_ && entry != count_)) {
        bad(documents.offset(i), "document entry {} is {}; entries rise from 0 to {}", i, entry, count_);
      }
      previous = entry;
    }
  }

  const CopyBytes& copy_;
  int64_t size_;
  const std::string& path_;
  TokenType type_ = TokenType::kUInt16;
  int64_t count_ = 0;
  int64_t entries_ = 0;
};

}  // namespace

ShardLayout parse_megatron_index(const CopyBytes& copy, int64_t size, const std::string& path) {
  return IndexParser(copy, size, path).parse();
}

ShardLayout parse_llmc_header(std::span<const std::byte> header, int64_t size, const std::string& path) {
  const auto bad = [&](int64_t offset, const std::string& what) {
    fail(ExitCode::kBadData, "{}: offset {}: {}", path, offset, what);
  };
  const auto field = [&](int64_t i) {
    return static_cast<int64_t>(header.size()) >= (i + 1) * 4 ? get<uint32_t>(header.data() + i * 4) : 0;
  };
  const uint32_t magic = field(0), version = field(1);
  for (const uint32_t known : {kLlmcMagic16, kLlmcMagic32}) {
    if (magic == __builtin_bswap32(known))
      bad(0, "llm.c's magic in big-endian byte order; its files are little endian");
  }
  if (magic != kLlmcMagic16 && magic != kLlmcMagic32) {
    bad(0, fmt::format("expected llm.c's magic {} (uint16 ids) or {} (uint32 ids), found {}; a token file without that "
                       "magic needs a Megatron index, PREFIX.idx",
                       kLlmcMagic16, kLlmcMagic32, magic));
  }
  const bool narrow = magic == kLlmcMagic16;
  if (const uint32_t expected = narrow ? kLlmcVersion16 : kLlmcVersion32; version != expected) {
    bad(4, fmt::format("expected version {} with magic {}, found {}", expected, magic, version));
  }
  if (size < kLlmcHeaderBytes) bad(size, fmt::format("the file ends inside its header of {} bytes", kLlmcHeaderBytes));
  const auto tokens = get<int32_t>(header.data() + 8);
  const TokenType type = narrow ? TokenType::kUInt16 : TokenType::kUInt32;
  const int64_t expected = kLlmcHeaderBytes + tokens * bytes_of(type);
  if (tokens < 0 || size != expected) {
    bad(8, fmt::format("{} tokens of {} take {} bytes, the file has {}", tokens, to_string(type), expected, size));
  }
  return {.type = type, .first_byte = kLlmcHeaderBytes, .tokens = tokens, .documents = {}};
}

}  // namespace mhmoe::data
