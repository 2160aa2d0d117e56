#include "core/arena.h"

#include <algorithm>

namespace mhmoe {
namespace {

constexpr size_t kSmallestBlock = size_t{1} << 20;

size_t align_up(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

MemorySource::~MemorySource() = default;

Arena::Arena(MemorySource& source, std::string name) : source_(source), name_(std::move(name)) {
  entries_.reserve(4096);
}

Arena::~Arena() {
  for (const Block& block : blocks_) source_.release(block.data);
}

void Arena::add_block(size_t bytes) {
  blocks_.push_back({static_cast<std::byte*>(source_.allocate(bytes)), bytes, 0});
}

void Arena::reserve(size_t bytes) {
  MHMOE_CHECK(entries_.empty(), "arena '{}': reserve() while {} entries are allocated", name_, entries_.size());
  if (reserved_bytes() >= bytes) return;
  for (const Block& block : blocks_) source_.release(block.data);
  blocks_.clear();
  current_ = 0;
  add_block(align_up(bytes));
}

Tensor Arena::allocate(const char* name, DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor(nullptr, dtype, dims, source_.kind());
  const size_t bytes = align_up(tensor.bytes());
  while (current_ < blocks_.size() && blocks_[current_].size - blocks_[current_].used < bytes) ++current_;
  if (current_ == blocks_.size()) add_block(std::max(bytes, kSmallestBlock));
  Block& block = blocks_[current_];
  tensor.data = block.data + block.used;
  entries_.push_back({name, current_, block.used, bytes});
  block.used += bytes;
  used_ += bytes;
  if (used_ > peak_) note_peak();
  return tensor;
}

void Arena::note_peak() {
  peak_ = used_;
  if (!record_peak_) return;
  peak_by_name_.clear();
  for (const Entry& entry : entries_) peak_by_name_[entry.name] += entry.bytes;
}

void Arena::release(Mark mark) {
  MHMOE_CHECK(mark.entries <= entries_.size(), "arena '{}': scopes closed out of order", name_);
  while (entries_.size() > mark.entries) {
    const Entry& entry = entries_.back();
    blocks_[entry.block].used = entry.offset;
    used_ -= entry.bytes;
    current_ = entry.block;
    entries_.pop_back();
  }
}

void Arena::merge_blocks() {
  if (blocks_.size() > 1) reserve(std::max(peak_, reserved_bytes() + 1));
}

void Arena::check_empty() const {
  if (entries_.empty()) return;
  std::string names;
  for (const Entry& entry : entries_) names += fmt::format(" {}", entry.name);
  fail(ExitCode::kInternal, "arena '{}': still allocated at the end of the step:{}", name_, names);
}

size_t Arena::reserved_bytes() const {
  size_t bytes = 0;
  for (const Block& block : blocks_) bytes += block.size;
  return bytes;
}

}  // namespace mhmoe
