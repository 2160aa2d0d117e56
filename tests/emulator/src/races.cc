#include "races.h"

#include <array>
#include <cstdint>

// Present only in programs built with ThreadSanitizer.
extern "C" {
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* tag);
[[gnu::weak]] void __tsan_release(void* tag);
[[gnu::weak]] void __tsan_ignore_thread_begin();
[[gnu::weak]] void __tsan_ignore_thread_end();
// Meant for a virtual machine's heap: the only way to say that memory is new.
[[gnu::weak]] void __tsan_java_init(uintptr_t heap, uintptr_t size);
[[gnu::weak]] void __tsan_java_alloc(uintptr_t memory, uintptr_t size);
}

namespace emulator::races {

bool watched() {
  return __tsan_create_fiber != nullptr;
}

void* create_context() {
  return __tsan_create_fiber(0);
}

// ThreadSanitizer gives a destroyed context's number to a new one, and then reports no race with the old one. So the
// latest ones stay: it has numbers for about 8000.
void destroy_context(void* context) {
  static std::array<void*, 1024> kept{};
  static size_t oldest = 0;
  if (kept[oldest] != nullptr) __tsan_destroy_fiber(kept[oldest]);
  kept[oldest] = context;
  oldest = (oldest + 1) % kept.size();
}

void* current_context() {
  return __tsan_get_current_fiber();
}

void switch_context(void* to) {
  constexpr unsigned kWithoutOrder = 1;
  __tsan_switch_to_fiber(to, kWithoutOrder);
}

void release(const void* tag) {
  __tsan_release(const_cast<void*>(tag));
}

void acquire(const void* tag) {
  __tsan_acquire(const_cast<void*>(tag));
}

void forget_accesses(std::span<std::byte> memory) {
  constexpr uintptr_t kCell = 8;
  const auto begin = (reinterpret_cast<uintptr_t>(memory.data()) + kCell - 1) & ~(kCell - 1);
  const auto end = reinterpret_cast<uintptr_t>(memory.data() + memory.size()) & ~(kCell - 1);
  if (begin >= end) return;
  static const bool known = (__tsan_java_init(begin, end - begin), true);
  static_cast<void>(known);
  __tsan_java_alloc(begin, end - begin);
}

Unwatched::Unwatched() {
  if (watched()) __tsan_ignore_thread_begin();
}

Unwatched::~Unwatched() {
  if (watched()) __tsan_ignore_thread_end();
}

}  // namespace emulator::races
