// Runs the threads of a grid one after another on one OS thread: a block at a time, and a stack of its own only for
// threads that wait at a barrier or a warp operation. So a kernel without either is a plain loop.
//
// Finds: a missing barrier (in at least one thread order), divergent barriers and warp operations, and the use of
// shared or device memory that nobody wrote (it is filled with bytes 0xff: not-a-number as f32 and bf16). Does not see:
// races between blocks, bank conflicts, coalescing, register pressure, the memory model of a real device.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <functional>

namespace emulator {

struct Index {
  unsigned x, y, z;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

// Puts a kernel on the stream: `body` runs once for every thread of the grid. Threads and blocks run in the order that
// the environment variable EMULATOR_ORDER names: forward (default), reversed, or random:SEED. A fault in the kernel
// ends the grid with Fault that says where; what a device's driver refuses returns an error code.
cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> body);

// From here on: called by device code, on a thread of the grid.

struct SourceLine {
  const char* file;
  int line;
};

// Waits until every thread of the block that has not exited is here; returns how many came with `predicate`.
unsigned block_barrier(SourceLine at, bool predicate);

enum class WarpOperation : unsigned { kSync, kShuffle, kBallot, kMatch, kReduce, kInstruction };

// What a lane brings to a warp operation: `source` is the lane that a shuffle reads, `combine` makes one word of two.
struct LaneInput {
  uint64_t word = 0;
  unsigned source = 0;
  uint64_t (*combine)(uint64_t, uint64_t) = nullptr;
};

// Waits for all lanes of the mask. kShuffle: returns the source lane's word; kBallot: bit i is lane i's word; kMatch:
// bit i says that lane i brought the same word; kReduce: all words combined; kSync: 0.
uint64_t warp_exchange(WarpOperation operation, unsigned mask, LaneInput input);

// An instruction that a whole warp executes as one: each lane brings its own registers, and when all 32 are there,
// `execute` runs once for all of them.
struct WarpInstruction {
  void (*execute)(WarpInstruction* const* lanes);
};
void warp_instruction(WarpInstruction& own);

// The calling thread's place in its warp.
unsigned lane();
std::byte* dynamic_shared_memory();
// __threadfence and its kin: only race detection needs to know.
void memory_fence();
bool is_shared_memory(const void* address);
// Ends the grid with this text and the thread's place. Nothing that owns memory may be on the caller's stack.
[[noreturn]] void kernel_fault(const char* text);

}  // namespace emulator
