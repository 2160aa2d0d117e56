// Planned memory: named allocations in last-in-first-out scopes over a list of blocks.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor.h"

namespace mhmoe {

class Arena;

// Where an arena's blocks come from: a device's memory, or fake addresses in a sizing pass.
class MHMOE_API MemorySource {
 public:
  MemorySource() = default;
  MemorySource(const MemorySource&) = delete;
  MemorySource& operator=(const MemorySource&) = delete;
  virtual ~MemorySource();
  virtual void* allocate(size_t bytes) = 0;  // 256-byte aligned; throws Error(kMemory) with what there is
  virtual void release(void* data) = 0;
  virtual DeviceKind kind() const = 0;

 private:
  friend class Arena;
  std::vector<const Arena*> arenas_;  // that have its memory, for the error when there is no more
};

// A block is added when the current one is full, which moves nothing; merge_blocks() joins them between steps.
// Names are string literals: entries keep the pointer, so that the step loop allocates nothing.
class MHMOE_API Arena {
 public:
  static constexpr size_t kAlignment = 256;
  struct Mark {
    size_t entries = 0;
  };

  Arena(MemorySource& source, std::string name);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  using BytesByName = std::map<std::string, size_t, std::less<>>;

  // Makes the first block at least this large. Only while nothing is allocated. Throws Error(kMemory) that names the
  // largest of `planned`, what the memory is for, and what the source's other arenas have.
  void reserve(size_t bytes, const BytesByName& planned = {});
  // Contents are undefined. Throws Error(kMemory) that names the tensor, the largest others and other arenas.
  Tensor allocate(const char* name, DType dtype, std::initializer_list<int64_t> dims);
  Mark mark() const { return {entries_.size()}; }
  void release(Mark mark);
  // Joins the blocks into one of the size of the peak. Only while nothing is allocated.
  void merge_blocks();
  // Throws with the names of what is still allocated.
  void check_empty() const;
  // From here on to need another block, or to merge blocks, is an error (kInternal), until as many thaw() as freeze().
  void freeze() { ++frozen_; }
  void thaw() { --frozen_; }
  // Changes whenever a block goes, and with it the addresses of what the same allocations get.
  uint64_t generation() const { return generation_; }

  size_t used_bytes() const { return used_; }
  size_t peak_bytes() const { return peak_; }
  size_t reserved_bytes() const;
  size_t block_count() const { return blocks_.size(); }
  // Bytes by name at the moment of the peak; recorded only after record_peak(true), as sizing passes do.
  const BytesByName& peak_by_name() const { return peak_by_name_; }
  void record_peak(bool on) { record_peak_ = on; }

 private:
  struct Block {
    std::byte* data;
    size_t size;
    size_t used;
  };
  struct Entry {
    const char* name;
    size_t block;
    size_t offset;  // of the block before this entry, where release() goes back to
    size_t bytes;
  };

  std::string other_arenas() const;
  void* get_block(size_t bytes, const std::string& purpose, const BytesByName& holders);
  void add_block_for(const char* name, const Tensor& tensor, size_t bytes);
  BytesByName bytes_by_name() const;
  void note_peak();

  MemorySource& source_;
  std::string name_;
  std::vector<Block> blocks_;
  std::vector<Entry> entries_;
  size_t current_ = 0;
  size_t used_ = 0;
  size_t peak_ = 0;
  uint64_t generation_ = 0;
  int frozen_ = 0;
  bool record_peak_ = false;
  BytesByName peak_by_name_;
};

// Releases at its end whatever was allocated since its beginning.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

}  // namespace mhmoe
