#include "data/shard_writer.h"

#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <limits>

#include "core/file_system.h"
#include "data/sealed_json.h"
#include "data/shard_format.h"

namespace mhmoe::data {
namespace {

using namespace shard_format;

constexpr size_t kBufferBytes = size_t{1} << 20;

template <class T>
std::span<const std::byte> bytes_of_value(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

// f(piece) for the first `size` bytes of a file, in order.
template <class F>
void for_each_piece(const std::string& path, int64_t size, F&& f) {
  const InputFile file(path);
  std::vector<std::byte> piece(kBufferBytes);
  for (int64_t at = 0; at < size; at += static_cast<int64_t>(piece.size())) {
    piece.resize(static_cast<size_t>(std::min(static_cast<int64_t>(kBufferBytes), size - at)));
    file.read(piece.data(), piece.size(), static_cast<size_t>(at));
    f(std::span<const std::byte>(piece));
  }
}

ShardInfo new_info(const Tokenizer& tokenizer, uint64_t inputs_hash) {
  ShardInfo info;
  info.vocab_size = tokenizer.vocab_size();
  info.type = tokenizer.vocab_size() < kNarrowVocabLimit ? TokenType::kUInt16 : TokenType::kInt32;
  info.tokenizer = tokenizer.name();
  info.tokenizer_hash = tokenizer.hash();
  info.inputs_hash = inputs_hash;
  info.block_bytes = BlockHasher::kBlockBytes;
  return info;
}

void check_result(int result, const std::string& path, const char* doing) {
  if (result < 0) fail_errno(path, doing, -result);
}

}  // namespace

ShardWriter::ShardWriter(const std::string& prefix, const Tokenizer& tokenizer, uint64_t inputs_hash)
    : prefix_(prefix),
      eos_(tokenizer.eos()),
      info_(new_info(tokenizer, inputs_hash)),
      tokens_(prefix + kPartialTokens),
      sizes_(prefix + kPartialSizes) {
  lock();
  tokens_.truncate(0);
  sizes_.truncate(0);
}

ShardWriter::ShardWriter(const std::string& prefix, const Tokenizer& tokenizer, const ShardInfo& durable)
    : prefix_(prefix),
      eos_(tokenizer.eos()),
      info_(durable),
      tokens_(prefix + kPartialTokens),
      sizes_(prefix + kPartialSizes) {
  lock();
  read_back(durable);
}

ShardWriter::~ShardWriter() {
  if (keep_) return;
  file_system().remove_file(tokens_.path().c_str());
  file_system().remove_file(sizes_.path().c_str());
}

void ShardWriter::lock() {
  lock_.emplace(tokens_.path());
  if (flock(lock_->descriptor(), LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  fail(ExitCode::kCannotCreate, "{}: another process is writing this shard; wait for it or name another output",
       tokens_.path());
}

void ShardWriter::read_back(const ShardInfo& durable) {
  const int64_t token_bytes = durable.tokens * bytes_of(durable.type);
  const int64_t size_bytes = durable.documents * static_cast<int64_t>(sizeof(int32_t));
  if (tokens_.size() >= token_bytes && sizes_.size() >= size_bytes) {
    for_each_piece(tokens_.path(), token_bytes, [&](auto piece) { blocks_.add(piece); });
    for_each_piece(sizes_.path(), size_bytes, [&](auto piece) { size_hash_.update(piece.data(), piece.size()); });
  }
  if (blocks_.hashes() != durable.block_hashes || size_hash_.digest() != durable.index_hash) {
    fail(ExitCode::kBadData,
         "{}: damaged since the interrupted run wrote its first {} bytes: the checksums differ; start again with "
         "--overwrite",
         tokens_.path(), token_bytes);
  }
  tokens_.truncate(token_bytes);
  sizes_.truncate(size_bytes);
}

void ShardWriter::add_document(std::span<const int32_t> tokens, int64_t utf8_bytes) {
  if (tokens.size() >= std::numeric_limits<int32_t>::max()) {
    fail(ExitCode::kBadData, "{}: document {} has {} tokens; the format allows 2147483646", prefix_, info_.documents,
         tokens.size());
  }
  visit_token_type(info_.type, [&](auto zero) {
    using T = decltype(zero);
    const size_t before = token_buffer_.size();
    token_buffer_.resize(before + (tokens.size() + 1) * sizeof(T));
    std::byte* to = token_buffer_.data() + before;
    const auto put = [&](int32_t id) {
      const T narrow = static_cast<T>(id);
      std::memcpy(to, &narrow, sizeof(T));
      to += sizeof(T);
    };
    for (const int32_t id : tokens) put(id);
    put(eos_);
  });
  size_buffer_.push_back(static_cast<int32_t>(tokens.size() + 1));
  info_.tokens += size_buffer_.back();
  info_.utf8_bytes += utf8_bytes;
  ++info_.documents;
  if (token_buffer_.size() >= kBufferBytes) flush();
}

void ShardWriter::flush() {
  blocks_.add(token_buffer_);
  tokens_.write(token_buffer_.data(), token_buffer_.size());
  token_buffer_.clear();
  const auto sizes = std::as_bytes(std::span(size_buffer_));
  size_hash_.update(sizes.data(), sizes.size());
  sizes_.write(sizes.data(), sizes.size());
  size_buffer_.clear();
}

ShardInfo ShardWriter::sync() {
  flush();
  tokens_.sync();
  sizes_.sync();
  info_.block_hashes = blocks_.hashes();
  info_.index_hash = size_hash_.digest();
  return info_;
}

// The tokens last: without them there is no shard, and what was interrupted here can be done again.
ShardInfo ShardWriter::finish() {
  sync();
  info_.index_hash = write_index();
  AtomicFile description(prefix_ + ".json");
  description.write(seal(to_json(info_)));
  description.commit();
  const std::string path = prefix_ + ".bin";
  check_result(file_system().rename(tokens_.path().c_str(), path.c_str()), path, "rename");
  const std::string folder = std::filesystem::path(path).parent_path().string();
  check_result(file_system().sync_folder(folder.empty() ? "." : folder.c_str()), path, "sync its folder");
  file_system().remove_file(sizes_.path().c_str());
  keep_ = true;
  return info_;
}

// Returns its hash.
uint64_t ShardWriter::write_index() {
  AtomicFile index(prefix_ + ".idx");
  HashStream hash;
  const auto write = [&](std::span<const std::byte> bytes) {
    hash.update(bytes.data(), bytes.size());
    index.write(bytes.data(), bytes.size());
  };
  const auto put = [&](auto value) { write(bytes_of_value(value)); };
  const auto for_sizes = [&](auto&& f) {
    for_each_piece(sizes_.path(), info_.documents * static_cast<int64_t>(sizeof(int32_t)), f);
  };
  write(std::as_bytes(std::span(kMagic)));
  put(kVersion);
  put(info_.type == TokenType::kInt32 ? kInt32 : kUint16);
  put(info_.documents);
  put(info_.documents + 1);
  for_sizes(write);
  int64_t pointer = 0;
  for_sizes([&](std::span<const std::byte> piece) {
    const std::span sizes(reinterpret_cast<const int32_t*>(piece.data()), piece.size() / sizeof(int32_t));
    for (const int32_t size : sizes) {
      put(pointer);
      pointer += size * bytes_of(info_.type);
    }
  });
  for (int64_t document = 0; document <= info_.documents; ++document) put(document);
  index.commit();
  return hash.digest();
}

}  // namespace mhmoe::data
