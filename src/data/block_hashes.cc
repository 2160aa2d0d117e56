#include "data/block_hashes.h"

#include <algorithm>

namespace mhmoe::data {

void BlockHasher::add(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const auto some = bytes.first(std::min(bytes.size(), static_cast<size_t>(kBlockBytes - in_block_)));
    hash_.update(some.data(), some.size());
    in_block_ += static_cast<int64_t>(some.size());
    bytes = bytes.subspan(some.size());
    if (in_block_ < kBlockBytes) return;
    whole_.push_back(hash_.digest());
    hash_.reset();
    in_block_ = 0;
  }
}

std::vector<uint64_t> BlockHasher::hashes() const {
  std::vector<uint64_t> hashes = whole_;
  if (in_block_ > 0) hashes.push_back(hash_.digest());
  return hashes;
}

BadBlock::BadBlock(const std::string& file, int64_t block, const std::string& message)
    : Error(ExitCode::kBadData, fmt::format("{}: block {}, {}", file, block, message)),
      place_(fmt::format("{}: block {}", file, block)) {}

BlockChecks::BlockChecks(std::vector<uint64_t> hashes, int64_t block_bytes)
    : hashes_(std::move(hashes)),
      block_bytes_(block_bytes),
      checked_(std::make_unique<std::atomic<uint64_t>[]>((hashes_.size() + 63) / 64)),
      bad_(std::make_unique<Bad>()) {}

void BlockChecks::check(const MappedFile& file, int64_t begin, int64_t end) {
  if (hashes_.empty()) return;
  for (int64_t block = begin / block_bytes_; block * block_bytes_ < end; ++block) {
    std::atomic<uint64_t>& word = checked_[block / 64];
    const uint64_t bit = uint64_t{1} << (block % 64);
    if (word.load(std::memory_order_relaxed) & bit) continue;
    check_block(file, block);
    word.fetch_or(bit, std::memory_order_relaxed);
  }
}

void BlockChecks::check_block(const MappedFile& file, int64_t block) const {
  const std::lock_guard lock(bad_->mutex);
  if (const auto known = bad_->messages.find(block); known != bad_->messages.end()) {
    throw BadBlock(file.path(), block, known->second);
  }
  const int64_t begin = block * block_bytes_;
  const int64_t end = std::min(begin + block_bytes_, static_cast<int64_t>(file.size()));
  thread_local std::vector<std::byte> bytes;
  bytes.resize(static_cast<size_t>(end - begin));
  file.copy(bytes.data(), bytes.size(), static_cast<size_t>(begin));
  if (const uint64_t hash = xxh3(bytes.data(), bytes.size()); hash != hashes_[block]) {
    file.check_unchanged();  // the better reason, if it is one
    const std::string message = fmt::format(
        "bytes {} to {}: the checksum is {}, expected {}: the file is damaged; copy or prepare the shard again", begin,
        end, to_hex(hash), to_hex(hashes_[block]));
    bad_->messages.emplace(block, message);
    throw BadBlock(file.path(), block, message);
  }
}

}  // namespace mhmoe::data
