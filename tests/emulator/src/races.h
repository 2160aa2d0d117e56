// ThreadSanitizer as a race detector for kernels: every thread of a grid is a context of its own, and only what orders
// memory on a device orders it here. Where ThreadSanitizer is not in the program, watched() is false, and nothing else
// may be called. The engine's own files are compiled without its instrumentation (CMakeLists.txt).
#pragma once

#include <cstddef>
#include <span>

namespace emulator::races {

bool watched();

// A context is what ThreadSanitizer takes for a thread. Switching orders nothing.
void* create_context();
void destroy_context(void* context);
void* current_context();
void switch_context(void* to);

// What came before a release of a tag is ordered before what follows an acquire of it. Tags lie 8 bytes apart.
void release(const void* tag);
void acquire(const void* tag);

// Static shared memory is new: nobody has touched it. Only one memory can be forgotten in a process.
void forget_accesses(std::span<std::byte> memory);

// What the calling context does to memory until the end of a scope is not watched: the engine's own lists.
class Unwatched {
 public:
  Unwatched();
  ~Unwatched();
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;
};

}  // namespace emulator::races
