#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>
#include <vector>

#include "core/hash.h"
#include "core/log.h"
#include "data/sealed_json.h"
#include "data/shard_format.h"
#include "data/shards.h"

namespace mhmoe::data {
namespace {

namespace fs = std::filesystem;

// False too where it cannot be told: then opening the file says why.
bool is_absent(const std::string& path) {
  std::error_code unknown;
  return !fs::exists(path, unknown) && !unknown;
}

std::string read_text(const std::string& path) {
  return InputFile(path).read_whole();
}

uint64_t hash_of(const InputFile& file) {
  HashStream hash;
  std::vector<std::byte> piece(size_t{1} << 18);
  for (size_t at = 0; at < file.size(); at += piece.size()) {
    piece.resize(std::min(piece.size(), file.size() - at));
    file.read(piece.data(), piece.size(), at);
    hash.update(piece.data(), piece.size());
  }
  return hash.digest();
}

// The first id outside [0, vocab_size), or ids.size().
template <class T>
size_t convert_ids(const std::byte* from, std::span<int32_t> ids, int64_t vocab_size) {
  size_t bad = ids.size();
  for (size_t i = ids.size(); i-- > 0;) {
    T id;
    std::memcpy(&id, from + i * sizeof(T), sizeof(T));
    ids[i] = static_cast<int32_t>(id);
    if (std::cmp_less(id, 0) || std::cmp_greater_equal(id, vocab_size)) bad = i;
  }
  return bad;
}

}  // namespace

struct Shard::Files {
  MappedFile tokens;
  ShardLayout layout;
  uint64_t index_hash;

  static Files open(const std::string& path) {
    if (!is_absent(path + ".idx")) return open_megatron(path);
    for (const std::string& file : {path + ".bin", path}) {
      if (std::error_code error; fs::is_regular_file(file, error)) return open_llmc(file);
    }
    fail(ExitCode::kMissingInput,
         "{0}.idx: no such file, and no {0}.bin or {0} either; a token shard is PREFIX.bin and PREFIX.idx, made by "
         "`mhmoe prepare` or Megatron, or an llm.c file",
         path);
  }

  static Files open_megatron(const std::string& prefix) {
    const InputFile index(prefix + ".idx");
    const auto copy = [&](void* out, size_t bytes, int64_t at) { index.read(out, bytes, static_cast<size_t>(at)); };
    const ShardLayout layout = parse_megatron_index(copy, static_cast<int64_t>(index.size()), index.path());
    Files files{MappedFile(prefix + ".bin"), layout, hash_of(index)};
    if (const auto size = static_cast<int64_t>(files.tokens.size()); size != layout.end_byte()) {
      fail(ExitCode::kBadData, "{}: {} bytes, expected {} by {}; copy or prepare the shard again", files.tokens.path(),
           size, layout.end_byte(), index.path());
    }
    return files;
  }

  static Files open_llmc(const std::string& path) {
    const InputFile file(path);
    std::vector<std::byte> header(std::min<size_t>(file.size(), shard_format::kLlmcHeaderBytes));
    file.read(header.data(), header.size(), 0);
    const ShardLayout layout = parse_llmc_header(header, static_cast<int64_t>(file.size()), path);
    return {MappedFile(path), layout, xxh3(header.data(), header.size())};
  }
};

Shard::Shard(const std::string& path, const Tokenizer& tokenizer) : Shard(path, tokenizer, Files::open(path)) {}

Shard::Shard(const std::string& path, const Tokenizer& tokenizer, Files files)
    : prefix_(path),
      tokens_(std::move(files.tokens)),
      layout_(files.layout),
      vocab_size_(tokenizer.vocab_size()),
      index_hash_(files.index_hash),
      identity_(index_hash_) {
  const bool has_index = layout_.documents.has_value();
  if (has_index && !is_absent(prefix_ + ".json")) {
    check_info(tokenizer);
  } else {
    log::warning("{}: {} beside it: nothing proves its bytes or its tokenizer, only the range of its ids is checked",
                 tokens_.path(), has_index ? fmt::format("no {}.json", prefix_) : "llm.c's format has no description");
  }
}

void Shard::check_info(const Tokenizer& tokenizer) {
  const std::string path = prefix_ + ".json";
  ShardInfo info = parse_shard_info(read_text(path), path);
  if (info.tokenizer_hash != tokenizer.hash()) {
    fail(ExitCode::kBadData,
         "{}: the shard was made with another tokenizer ({} of {} ids, hash {:016x}) than the one given "
         "({} of {} ids, hash {:016x}); name that tokenizer or prepare the shard again",
         path, info.tokenizer, info.vocab_size, info.tokenizer_hash, tokenizer.name(), tokenizer.vocab_size(),
         tokenizer.hash());
  }
  if (info.tokens != layout_.tokens || info.documents != layout_.documents) {
    fail(ExitCode::kBadData, "{}: {} tokens in {} documents, but the shard has {} in {}; prepare the shard again", path,
         info.tokens, info.documents, layout_.tokens, *layout_.documents);
  }
  if (info.index_hash != index_hash_) {
    fail(ExitCode::kBadData,
         "{0}.idx: its checksum is {1:016x}, {0}.json expects {2:016x}: damaged, or of another shard; copy or prepare "
         "the shard again",
         prefix_, index_hash_, info.index_hash);
  }
  const int64_t blocks = (layout_.end_byte() + info.block_bytes - 1) / info.block_bytes;
  if (info.type != layout_.type || static_cast<int64_t>(info.block_hashes.size()) != blocks) {
    fail(ExitCode::kBadData, "{}: {} and {} blocks, but the shard has {} and {}; prepare the shard again", path,
         to_string(info.type), info.block_hashes.size(), to_string(layout_.type), blocks);
  }
  identity_ = xxh3(info.block_hashes.data(), info.block_hashes.size() * sizeof(uint64_t), index_hash_);
  blocks_ = BlockChecks(info.block_hashes, info.block_bytes);
  info_ = std::move(info);
}

void Shard::read(int64_t begin, std::span<int32_t> out) const {
  const auto count = static_cast<int64_t>(out.size());
  MHMOE_CHECK(begin >= 0 && begin + count <= layout_.tokens, "{}: tokens [{}, {}) of {}", prefix_, begin, begin + count,
              layout_.tokens);
  constexpr int64_t kPiece = 8192;  // what the copy below takes, in tokens
  for (int64_t done = 0; done < count; done += kPiece) {
    convert(begin + done, out.subspan(static_cast<size_t>(done), static_cast<size_t>(std::min(kPiece, count - done))));
  }
  tokens_.check_unchanged();
}

void Shard::convert(int64_t begin, std::span<int32_t> out) const {
  const int64_t width = bytes_of(layout_.type);
  const int64_t at = layout_.first_byte + begin * width;
  const int64_t bytes = static_cast<int64_t>(out.size()) * width;
  blocks_.check(tokens_, at, at + bytes);
  thread_local std::vector<std::byte> raw;
  raw.resize(static_cast<size_t>(bytes));
  tokens_.copy(raw.data(), raw.size(), static_cast<size_t>(at));
  visit_token_type(layout_.type, [&](auto zero) {
    using T = decltype(zero);
    const size_t i = convert_ids<T>(raw.data(), out, vocab_size_);
    if (i == out.size()) return;
    tokens_.check_unchanged();
    T id;
    std::memcpy(&id, raw.data() + i * sizeof(T), sizeof(T));
    fail(ExitCode::kBadData, "{}: offset {}: token id {} outside the vocabulary of {}; wrong tokenizer or damaged file",
         tokens_.path(), at + static_cast<int64_t>(i) * width, id, vocab_size_);
  });
}

}  // namespace mhmoe::data
