// XXH3-64 of every block of a file of tokens: taken while it is written, checked when a block is first read.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/hash.h"

namespace mhmoe::data {

// Of a stream of bytes; the last block may be shorter.
class BlockHasher {
 public:
  static constexpr int64_t kBlockBytes = int64_t{1} << 20;

  void add(std::span<const std::byte> bytes);
  // Of all bytes so far.
  std::vector<uint64_t> hashes() const;

 private:
  HashStream hash_;
  int64_t in_block_ = 0;
  std::vector<uint64_t> whole_;
};

// A block whose checksum is wrong.
class BadBlock : public Error {
 public:
  BadBlock(const std::string& file, int64_t block, const std::string& message);
  const std::string& place() const { return place_; }  // "FILE: block N"

 private:
  std::string place_;
};

// Safe for use by many threads; blocks are checked one at a time.
class BlockChecks {
 public:
  // None are checked where `hashes` is empty.
  BlockChecks(std::vector<uint64_t> hashes, int64_t block_bytes);

  // Checks the blocks of `file` that hold bytes [begin, end), those that were not yet. Throws BadBlock naming the
  // block and its bytes; what was found bad stays so, without being read again.
  void check(const MappedFile& file, int64_t begin, int64_t end);

 private:
  struct Bad {
    std::mutex mutex;
    std::map<int64_t, std::string> messages;  // by block
  };

  void check_block(const MappedFile& file, int64_t block) const;

  std::vector<uint64_t> hashes_;
  int64_t block_bytes_;
  std::unique_ptr<std::atomic<uint64_t>[]> checked_;  // a bit a block
  std::unique_ptr<Bad> bad_;
};

}  // namespace mhmoe::data
