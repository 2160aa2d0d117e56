#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include "emulator/fault.h"
#include "races.h"
#include "text.h"

// Present only in programs built with AddressSanitizer, which must be told about every change of stack.
extern "C" {
[[gnu::weak]] void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
[[gnu::weak]] void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
[[gnu::weak]] void __asan_unpoison_memory_region(const volatile void* address, size_t size);
}

namespace emulator {
namespace {

// Untouched pages cost nothing, but ThreadSanitizer's memory of what was done to them does.
const size_t kStackBytes = size_t{races::watched() ? 64u : 256u} << 10;
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
  if (races::watched()) context_ = races::create_context();
  prepare();
}

void Fiber::stand_here() {
  if (races::watched()) context_ = races::current_context();
}

Fiber::~Fiber() {
  destroy();
  if (context_ != nullptr && stack_ != nullptr) races::destroy_context(context_);
  if (stack_ != nullptr) munmap(stack_ + kStackBytes - mapped_bytes_, mapped_bytes_);
}

void Fiber::restart() {
  if (__asan_unpoison_memory_region != nullptr) __asan_unpoison_memory_region(stack_, stack_bytes_);
  if (context_ != nullptr) renew_context();
  prepare();
}

// What the next user of this stack does must not be ordered after what the last one did.
void Fiber::renew_context() {
  races::destroy_context(context_);
  context_ = races::create_context();
  mmap(stack_, kStackBytes, PROT_READ | PROT_WRITE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

void Fiber::release(const void* tag) {
  void* caller = races::current_context();
  races::switch_context(context_);
  races::release(tag);
  races::switch_context(caller);
}

void Fiber::switch_to(Fiber& to) {
  leaving = this;
  if (to.context_ != nullptr) races::switch_context(to.context_);
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
