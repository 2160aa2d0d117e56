#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include "emulator/fault.h"
#include "text.h"

// Present only in programs built with AddressSanitizer, which must be told about every change of stack.
extern "C" {
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}

namespace emulator {
namespace {

constexpr size_t kStackBytes = size_t{256} << 10;  // untouched pages cost nothing
constexpr size_t kColourBytes = 192, kColours = 61;

Fiber* leaving = nullptr;  // the fiber that switched last

}  // namespace

Fiber::Fiber() {
  prepare();
}

Fiber::Fiber(Entry entry, size_t colour) : entry_(entry) {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  mapped_bytes_ = kStackBytes + page;
  void* mapping =
      mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED || mprotect(mapping, page, PROT_NONE) != 0) {
    throw Fault(text("no memory for a stack of %zu bytes", mapped_bytes_));
  }
  stack_ = static_cast<std::byte*>(mapping) + page;
  stack_bytes_ = kStackBytes - colour % kColours * kColourBytes;
  bottom_ = stack_;
  prepare();
}

Fiber::~Fiber() {
  destroy();
  if (stack_ != nullptr) munmap(stack_ + kStackBytes - mapped_bytes_, mapped_bytes_);
}

void Fiber::restart() {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(stack_, stack_bytes_);
  prepare();
}

void Fiber::switch_to(Fiber& to) {
  leaving = this;
  if (__sanitizer_start_switch_fiber != nullptr)
    __sanitizer_start_switch_fiber(&fake_stack_, to.bottom_, to.stack_bytes_);
  swap(to);
  arrive(fake_stack_);
}

void Fiber::entered() {
  arrive(nullptr);
}

// AddressSanitizer knows where the program's own stack lies, which it must be told when we go back to it.
void Fiber::arrive(void* fake_stack) {
  if (__sanitizer_finish_switch_fiber == nullptr) return;
  __sanitizer_finish_switch_fiber(fake_stack, &leaving->bottom_, &leaving->stack_bytes_);
}

}  // namespace emulator
