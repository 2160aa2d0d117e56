// Switching stacks where there is no assembly for the machine.
#include <ucontext.h>

#include "fiber.h"

namespace emulator {

void Fiber::prepare() {
  if (machine_ == nullptr) machine_ = new ucontext_t;
  auto* context = static_cast<ucontext_t*>(machine_);
  getcontext(context);
  if (stack_ == nullptr) return;
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = stack_bytes_;
  context->uc_link = nullptr;
  makecontext(context, entry_, 0);
}

void Fiber::swap(Fiber& to) {
  swapcontext(static_cast<ucontext_t*>(machine_), static_cast<ucontext_t*>(to.machine_));
}

void Fiber::destroy() {
  delete static_cast<ucontext_t*>(machine_);
}

}  // namespace emulator
