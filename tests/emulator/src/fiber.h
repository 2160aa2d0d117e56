// A stack of its own, on which code runs until it switches to another. One OS thread runs all of them in turn.
#pragma once

#include <cstddef>

namespace emulator {

class Fiber {
 public:
  using Entry = void (*)();  // never returns

  // The stack the program is on already.
  Fiber();
  // Called on the program's own stack before it switches to others: it may be another of its threads than last time.
  void stand_here();
  // A new stack with an unmapped page below it. `colour` moves its top, so that equal frames of many fibers do not
  // share cache sets.
  Fiber(Entry entry, size_t colour);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Forgets where it stood, and what was done to its stack: the next switch to it calls the entry again.
  void restart();
  // What this fiber did is ordered before what follows an acquire of the tag (races.h). Called from another one.
  void release(const void* tag);
  // Called on this fiber's stack; returns when somebody switches back.
  void switch_to(Fiber& to);
  // Must be called first by an entry.
  static void entered();

 private:
  void renew_context();
  // The machine's part: fiber_x86_64.cc or fiber_ucontext.cc.
  void prepare();
  void swap(Fiber& to);
  void destroy();

  static void arrive(void* fake_stack);

  Entry entry_ = nullptr;
  std::byte* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  size_t mapped_bytes_ = 0;
  void* machine_ = nullptr;
  // AddressSanitizer's: its shadow of the stack, and where the stack begins.
  void* fake_stack_ = nullptr;
  const void* bottom_ = nullptr;
  void* context_ = nullptr;  // ThreadSanitizer's
};

}  // namespace emulator
