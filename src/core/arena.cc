#include "core/arena.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace mhmoe {
namespace {

constexpr size_t kSmallestBlock = size_t{1} << 20;

constexpr size_t kNamed = 5;  // of the largest holders of memory, in an error

std::string mebibytes(size_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

// "'a' 12.0 MiB, 'b' 3.5 MiB, 7 others 1.0 MiB", the largest first.
std::string table(const Arena::BytesByName& bytes) {
  std::vector<std::pair<size_t, std::string_view>> sorted;
  for (const auto& [name, size] : bytes) sorted.emplace_back(size, name);
  std::ranges::sort(sorted, std::greater<>());
  std::string text;
  size_t others = 0;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const auto& [size, name] = sorted[i];
    if (i >= kNamed) {
      others += size;
    } else {
      text += fmt::format("{}'{}' {}", text.empty() ? "" : ", ", name, mebibytes(size));
    }
  }
  if (sorted.size() > kNamed) text += fmt::format(", {} others {}", sorted.size() - kNamed, mebibytes(others));
  return text.empty() ? "nothing" : text;
}

size_t align_up(size_t bytes) {
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

}  // namespace

MemorySource::~MemorySource() = default;

Arena::Arena(MemorySource& source, std::string name) : source_(source), name_(std::move(name)) {
  entries_.reserve(4096);
  source_.arenas_.push_back(this);
}

Arena::~Arena() {
  std::erase(source_.arenas_, this);
  for (const Block& block : blocks_) source_.release(block.data);
}

// "; the state memory has 12.0 MiB", for each.
std::string Arena::other_arenas() const {
  std::string text;
  for (const Arena* arena : source_.arenas_) {
    if (arena != this) text += fmt::format("; the {} memory has {}", arena->name_, mebibytes(arena->reserved_bytes()));
  }
  return text;
}

void* Arena::get_block(size_t bytes, const std::string& purpose, const BytesByName& holders) {
  try {
    return source_.allocate(bytes);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kMemory) throw;
    fail(ExitCode::kMemory,
         "{}; asked for by {} of the {} memory: {}{}; use a smaller train.micro_batch_sequences, train.recompute: "
         "block, a smaller model, or more devices; mhmoe plan shows the need",
         error.what(), purpose, name_, table(holders), other_arenas());
  }
}

void Arena::add_block_for(const char* name, const Tensor& tensor, size_t bytes) {
  MHMOE_CHECK(frozen_ == 0, "arena '{}': '{}' {} does not fit its blocks, and none may be added now", name_, name,
              tensor.describe());
  const size_t size = std::max(bytes, kSmallestBlock);
  void* data = get_block(size, fmt::format("'{}' {}", name, tensor.describe()), bytes_by_name());
  blocks_.push_back({static_cast<std::byte*>(data), size, 0});
}

Arena::BytesByName Arena::bytes_by_name() const {
  BytesByName bytes;
  for (const Entry& entry : entries_) bytes[entry.name] += entry.bytes;
  return bytes;
}

void Arena::reserve(size_t bytes, const BytesByName& planned) {
  MHMOE_CHECK(entries_.empty(), "arena '{}': reserve() while {} entries are allocated", name_, entries_.size());
  if (reserved_bytes() >= bytes) return;
  MHMOE_CHECK(frozen_ == 0, "arena '{}': its blocks may not change now", name_);
  for (const Block& block : blocks_) source_.release(block.data);
  blocks_.clear();
  current_ = 0;
  ++generation_;
  const size_t size = align_up(bytes);
  blocks_.push_back({static_cast<std::byte*>(get_block(size, "the plan", planned)), size, 0});
}

Tensor Arena::allocate(const char* name, DType dtype, std::initializer_list<int64_t> dims) {
  Tensor tensor(nullptr, dtype, dims, source_.kind());
  const size_t bytes = align_up(tensor.bytes());
  while (current_ < blocks_.size() && blocks_[current_].size - blocks_[current_].used < bytes) ++current_;
  if (current_ == blocks_.size()) add_block_for(name, tensor, bytes);
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
  if (record_peak_) peak_by_name_ = bytes_by_name();
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
