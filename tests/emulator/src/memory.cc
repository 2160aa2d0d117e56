#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "emulator/fault.h"
#include "failures.h"
#include "illegal_access.h"
#include "objects.h"
#include "text.h"

// Present only in programs built with AddressSanitizer.
extern "C" {
[[gnu::weak]] void __asan_poison_memory_region(const volatile void* memory, size_t bytes);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* memory, size_t bytes);
}

namespace emulator {
namespace {

constexpr int kPoison = 0xff;              // not-a-number as f32 and bf16
constexpr auto kBeside = std::byte{0xc5};  // fills the pages before and after an allocation
constexpr size_t kAlignment = 256;         // no more than CUDA promises
constexpr size_t kRememberedFreed = size_t{1} << 12;

size_t round_up(size_t value, size_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

const char* name_of(MemoryKind kind) {
  return kind == MemoryKind::kDevice ? "device memory" : "pinned host memory";
}

size_t meminfo(const char* format) {
  size_t kilobytes = 0;
  if (std::FILE* file = std::fopen("/proc/meminfo", "r")) {
    char line[128];
    while (std::fgets(line, sizeof(line), file) != nullptr && std::sscanf(line, format, &kilobytes) != 1) continue;
    std::fclose(file);
  }
  return kilobytes << 10;
}

struct Margins {
  std::byte *front, *front_end, *back, *back_end;
};

// The parts of an allocation's own pages that are not the program's.
Margins margins(const Allocation& allocation) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  return {allocation.pages + page, allocation.data, allocation.data + allocation.bytes,
          allocation.pages + allocation.mapped_bytes - page};
}

bool untouched(const std::byte* begin, const std::byte* end) {
  return std::all_of(begin, end, [](std::byte value) { return value == kBeside; });
}

// Pages for so many bytes; nothing in it yet.
bool map_pages(Allocation& out) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t inner = round_up(round_up(out.bytes, kAlignment), page);
  void* mapping = mmap(nullptr, inner + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return false;
  out.pages = static_cast<std::byte*>(mapping);
  out.mapped_bytes = inner + 2 * page;
  if (mprotect(out.pages + page, inner, PROT_READ | PROT_WRITE) != 0) {
    munmap(out.pages, out.mapped_bytes);
    return false;
  }
  out.data = out.pages + page + inner - round_up(out.bytes, kAlignment);
  return true;
}

void watch(const std::byte* begin, const std::byte* end, bool forbidden) {
  if (__asan_poison_memory_region == nullptr) return;
  (forbidden ? __asan_poison_memory_region : __asan_unpoison_memory_region)(begin, static_cast<size_t>(end - begin));
}

void watch_all(const Allocation& allocation, bool forbidden) {
  watch(allocation.pages, allocation.pages + allocation.mapped_bytes, forbidden);
}

void fill(const Allocation& allocation) {
  const Margins beside = margins(allocation);
  std::fill(beside.front, beside.front_end, kBeside);
  std::fill(beside.back, beside.back_end, kBeside);
  std::memset(allocation.data, kPoison, allocation.bytes);
  watch_all(allocation, true);
  watch(allocation.data, allocation.data + allocation.bytes, false);
}

}  // namespace

std::string Allocation::describe() const {
  return text("%s of %zu bytes (created as number %llu)", name_of(kind), bytes,
              static_cast<unsigned long long>(number));
}

Memory& memory() {
  static auto* all = new Memory;
  return *all;
}

size_t Memory::total_bytes() {
  const auto& limit = failures().memory;
  return limit ? *limit : meminfo("MemTotal: %zu kB");
}

size_t Memory::available_bytes() const {
  const auto& limit = failures().memory;
  return limit ? *limit - std::min(*limit, device_bytes_) : meminfo("MemAvailable: %zu kB");
}

Allocation* Memory::allocate(size_t bytes, MemoryKind kind) {
  const bool device = kind == MemoryKind::kDevice;
  const size_t most = device && failures().memory ? available_bytes() : meminfo("MemTotal: %zu kB");
  Allocation made{.bytes = bytes, .kind = kind};
  watch_illegal_accesses();
  if (bytes > most || !map_pages(made)) return nullptr;
  fill(made);
  made.number = track(made.data, text("%s of %zu bytes", name_of(kind), bytes));
  if (device) device_bytes_ += bytes;
  const auto address = reinterpret_cast<uintptr_t>(made.data);
  alive_.emplace(made.number, address);
  return &(by_address_[address] = made);
}

cudaError_t Memory::release(const char* call, const void* data, MemoryKind kind) {
  const auto found = by_address_.find(reinterpret_cast<uintptr_t>(data));
  if (found == by_address_.end()) {
    const Allocation* inside = find(data);
    report_finding(text("%s: %p is %s%s", call, data, inside == nullptr ? "no memory of CUDA's" : "inside ",
                        inside == nullptr ? "" : inside->describe().c_str()));
    return cudaErrorInvalidValue;
  }
  Allocation& allocation = found->second;
  if (allocation.freed) {
    report_finding(text("%s: %s was freed before", call, allocation.describe().c_str()));
    return cudaErrorInvalidValue;
  }
  if (allocation.kind != kind) {
    report_finding(text("%s: this is %s", call, allocation.describe().c_str()));
    return cudaErrorInvalidValue;
  }
  retire(allocation);
  return cudaSuccess;
}

// The address is not used again for a while, so that late uses are found.
void Memory::retire(Allocation& allocation) {
  const Margins beside = margins(allocation);
  watch_all(allocation, false);
  if (!untouched(beside.front, beside.front_end) || !untouched(beside.back, beside.back_end)) {
    report_finding(text("bytes beside %s were written", allocation.describe().c_str()));
  }
  watch_all(allocation, true);
  mprotect(allocation.pages, allocation.mapped_bytes, PROT_NONE);
  madvise(allocation.pages, allocation.mapped_bytes, MADV_DONTNEED);
  forget(allocation.data);
  alive_.erase(allocation.number);
  allocation.freed = true;
  if (allocation.kind == MemoryKind::kDevice) device_bytes_ -= allocation.bytes;
  freed_.push_back(reinterpret_cast<uintptr_t>(allocation.data));
  if (freed_.size() <= kRememberedFreed) return;
  const auto oldest = by_address_.extract(freed_.front());
  freed_.pop_front();
  watch_all(oldest.mapped(), false);
  munmap(oldest.mapped().pages, oldest.mapped().mapped_bytes);
}

const Allocation* Memory::find(const void* address) const {
  const auto after = by_address_.upper_bound(reinterpret_cast<uintptr_t>(address));
  if (after == by_address_.begin()) return nullptr;
  const Allocation& candidate = std::prev(after)->second;
  return candidate.holds(address) ? &candidate : nullptr;
}

std::string Memory::describe_forbidden(const void* address) const {
  const auto* at = static_cast<const std::byte*>(address);
  const auto near = [&](const Allocation& allocation) {
    return at >= allocation.pages && at < allocation.pages + allocation.mapped_bytes;
  };
  const auto after = by_address_.upper_bound(reinterpret_cast<uintptr_t>(address));
  for (auto candidate : {after, after == by_address_.begin() ? after : std::prev(after)}) {
    if (candidate == by_address_.end() || !near(candidate->second)) continue;
    const Allocation& found = candidate->second;
    if (found.freed) return "freed memory: " + found.describe();
    return text("memory %s %s", at < found.data ? "before" : "beyond", found.describe().c_str());
  }
  return {};
}

std::vector<uint64_t> Memory::allocations_at(const char* what, const std::vector<const void*>& addresses) const {
  std::vector<uint64_t> numbers;
  for (const void* address : addresses) {
    const Allocation* found = find(address);
    if (found == nullptr) continue;
    if (found->freed) throw Fault(text("%s: an argument points to freed memory: %s", what, found->describe().c_str()));
    if (numbers.empty() || numbers.back() != found->number) numbers.push_back(found->number);
  }
  return numbers;
}

void Memory::expect_alive(const char* what, uint64_t number) const {
  if (!alive_.contains(number)) {
    throw Fault(text("%s: uses memory that was freed before it ran (created as number %llu)", what,
                     static_cast<unsigned long long>(number)));
  }
}

}  // namespace emulator
