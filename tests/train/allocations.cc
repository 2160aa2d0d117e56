// Replaces operator new, which libraries call too. malloc and its kin are replaced where this program's own objects
// call them (the linker's --wrap, tests/CMakeLists.txt), so that what oneDNN, OpenMP and the C library take so for
// themselves is not seen.
#include "train/allocations.h"

#include <execinfo.h>
#include <link.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string_view>

namespace mhmoe::train {
namespace {

constexpr int kFrames = 48;
using Stack = std::array<void*, kFrames>;

struct AddressRange {
  uintptr_t begin = 0, end = 0;
};

// Of the process, because a thread may still be in the middle of one when counting ends.
std::atomic<bool> g_counting = false;
std::atomic<int64_t> g_objects = 0, g_memory = 0, g_of_onednn = 0;
std::mutex g_first_mutex;  // of these two
Stack g_first_stack;
int g_first_depth = 0;  // 0: none yet
AddressRange g_onednn;

int find_onednn(dl_phdr_info* library, size_t /*bytes*/, void* /*unused*/) {
  const std::string_view path = library->dlpi_name;
  if (!path.substr(path.find_last_of('/') + 1).starts_with("libdnnl.so")) return 0;
  g_onednn.begin = library->dlpi_addr;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    g_onednn.end = std::max(g_onednn.end, library->dlpi_addr + segment.p_vaddr + segment.p_memsz);
  }
  return 1;
}

bool called_by_onednn(const Stack& stack, int depth) {
  return std::any_of(stack.begin(), stack.begin() + depth, [](const void* frame) {
    const auto address = reinterpret_cast<uintptr_t>(frame);
    return address >= g_onednn.begin && address < g_onednn.end;
  });
}

void count(std::atomic<int64_t>& counter) {
  thread_local bool inside = false;
  if (!g_counting || inside) return;
  inside = true;
  Stack stack{};
  const int depth = backtrace(stack.data(), kFrames);
  if (&counter == &g_objects && called_by_onednn(stack, depth)) {
    ++g_of_onednn;
  } else {
    ++counter;
    const std::lock_guard lock(g_first_mutex);
    if (g_first_depth == 0) {
      g_first_stack = stack;
      g_first_depth = depth;
    }
  }
  inside = false;
}

struct Counting {
  Counting() {
    for (auto* counter : {&g_objects, &g_memory, &g_of_onednn}) *counter = 0;
    const std::lock_guard lock(g_first_mutex);
    g_first_depth = 0;
    g_counting = true;
  }
  ~Counting() { g_counting = false; }
  Counting(const Counting&) = delete;
  Counting& operator=(const Counting&) = delete;
};

}  // namespace

Allocations allocations_of(const std::function<void()>& work) {
  dl_iterate_phdr(find_onednn, nullptr);
  Stack unused;
  backtrace(unused.data(), 1);  // loads what it needs
  {
    const Counting counting;
    work();
  }
  return {.objects = g_objects, .memory = g_memory, .of_onednn = g_of_onednn};
}

void print_first_allocation() {
  const std::lock_guard lock(g_first_mutex);
  backtrace_symbols_fd(g_first_stack.data(), g_first_depth, 2);
}

// The linker's names: what --wrap=NAME makes of calls of NAME, and what it leaves of NAME itself.
void* real_malloc(size_t bytes) asm("__real_malloc");
void* real_calloc(size_t count, size_t bytes) asm("__real_calloc");
void* real_realloc(void* memory, size_t bytes) asm("__real_realloc");
void* real_aligned_alloc(size_t alignment, size_t bytes) asm("__real_aligned_alloc");
int real_posix_memalign(void** memory, size_t alignment, size_t bytes) asm("__real_posix_memalign");

void* counted_malloc(size_t bytes) asm("__wrap_malloc");
void* counted_calloc(size_t count, size_t bytes) asm("__wrap_calloc");
void* counted_realloc(void* memory, size_t bytes) asm("__wrap_realloc");
void* counted_aligned_alloc(size_t alignment, size_t bytes) asm("__wrap_aligned_alloc");
int counted_posix_memalign(void** memory, size_t alignment, size_t bytes) asm("__wrap_posix_memalign");

void* counted_malloc(size_t bytes) {
  count(g_memory);
  return real_malloc(bytes);
}
void* counted_calloc(size_t items, size_t bytes) {
  count(g_memory);
  return real_calloc(items, bytes);
}
void* counted_realloc(void* memory, size_t bytes) {
  count(g_memory);
  return real_realloc(memory, bytes);
}
void* counted_aligned_alloc(size_t alignment, size_t bytes) {
  count(g_memory);
  return real_aligned_alloc(alignment, bytes);
}
int counted_posix_memalign(void** memory, size_t alignment, size_t bytes) {
  count(g_memory);
  return real_posix_memalign(memory, alignment, bytes);
}

namespace {

void* allocate_object(size_t bytes, size_t alignment) {
  count(g_objects);
  void* memory = real_aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace
}  // namespace mhmoe::train

using mhmoe::train::allocate_object;

[[gnu::noinline]] void* operator new(size_t bytes) {
  return allocate_object(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(size_t bytes, std::align_val_t alignment) {
  return allocate_object(bytes, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t /*bytes*/) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t /*bytes*/, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
