// cp.async: copies of 16 bytes from global to shared memory that a thread begins now and that are done later.
//
// EMULATOR_CP_ASYNC=wait (default): the bytes arrive when the thread waits for them; until then the target holds
// garbage. Shows a wait that is too weak, a read before it, and a tile that is overwritten while others still read it.
// issue: the bytes arrive at once, as early as a device may deliver them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/engine.h"

namespace emulator {

struct AsyncCopy {
  std::byte* target;
  const std::byte* source;  // null: zeros
};

// Once a grid, and once a block.
void read_async_copy_mode();
void forget_async_copies();
// Copies of this thread of the block that nobody has waited for.
bool has_unfinished_copies(unsigned thread);

// From here on: called by device code, on a thread of the grid. Bytes are moved in the kernel's own translation unit,
// so that sanitizers see who moves them.

// Whether the copy is put off; else the caller makes it now.
bool put_off(const AsyncCopy& copy);
void commit_copies();
// The next copy out of all but the latest `pending` committed groups; false if they are all done.
bool next_finished_copy(unsigned pending, AsyncCopy& copy);

struct alignas(16) Bytes16 {
  uint64_t low, high;
} __attribute__((may_alias));

inline void begin_copy_16(void* target, const void* source, bool valid) {
  if (reinterpret_cast<uintptr_t>(target) % 16 != 0) kernel_fault("cp.async: the target is not aligned to 16 bytes");
  if (reinterpret_cast<uintptr_t>(source) % 16 != 0) kernel_fault("cp.async: the source is not aligned to 16 bytes");
  if (!is_shared_memory(target)) kernel_fault("cp.async: the target is not in shared memory");
  if (valid && is_shared_memory(source)) kernel_fault("cp.async: the source is in shared memory");
  const AsyncCopy copy = {static_cast<std::byte*>(target), valid ? static_cast<const std::byte*>(source) : nullptr};
  auto& bytes = *static_cast<Bytes16*>(target);
  if (put_off(copy)) {
    bytes = {~uint64_t{0}, ~uint64_t{0}};
  } else {
    bytes = valid ? *static_cast<const Bytes16*>(source) : Bytes16{0, 0};
  }
}

inline void wait_for_copies(unsigned pending) {
  for (AsyncCopy copy{}; next_finished_copy(pending, copy);) {
    *reinterpret_cast<Bytes16*>(copy.target) =
        copy.source != nullptr ? *reinterpret_cast<const Bytes16*>(copy.source) : Bytes16{0, 0};
  }
}

}  // namespace emulator
