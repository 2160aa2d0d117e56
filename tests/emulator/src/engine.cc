#include "emulator/engine.h"

#include <cstdlib>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "emulator/async_copy.h"
#include "emulator/fault.h"
#include "grid.h"
#include "races.h"
#include "scheduler.h"
#include "static_shared.h"
#include "text.h"

namespace emulator {

Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr auto kPoison = std::byte{0xff};

std::span<std::byte> dynamic_shared, static_shared;  // of the block that runs

// The dynamic shared memory of a grid's blocks: one for all of them, or each has its own where races are watched.
class DynamicShared {
 public:
  explicit DynamicShared(size_t bytes) : bytes_(bytes) {}

  std::span<std::byte> next_block() {
    if (bytes_ == 0) return {};
    if (blocks_.empty() || races::watched()) {
      void* data = nullptr;
      if (posix_memalign(&data, 128, bytes_) != 0) {
        throw Fault(text("no memory for %zu bytes of shared memory", bytes_));
      }
      blocks_.emplace_back(static_cast<std::byte*>(data));
    }
    return {blocks_.back().get(), bytes_};
  }

 private:
  struct Free {
    void operator()(std::byte* data) const { std::free(data); }
  };
  size_t bytes_;
  std::vector<std::unique_ptr<std::byte, Free>> blocks_;
};

// Shared memory is new in every block, and nobody has written it.
// Written by what no sanitizer watches: their guards lie between the variables, and other blocks' contexts are not
// ordered before this.
[[gnu::no_sanitize_address]] void poison(std::span<std::byte> memory) {
  using Word = uint64_t __attribute__((may_alias));
  auto* words = reinterpret_cast<Word*>(memory.data());
  const size_t count = memory.size() / sizeof(Word);
  for (size_t i = 0; i < count; ++i) {
    words[i] = ~uint64_t{0};
    asm volatile("" ::: "memory");  // or the loop becomes a call of memset, which is watched
  }
  for (std::byte& byte : memory.subspan(count * sizeof(Word))) {
    byte = kPoison;
    asm volatile("" ::: "memory");
  }
}

void poison_shared() {
  poison(dynamic_shared);
  poison(static_shared);
  if (races::watched()) races::forget_accesses(static_shared);
}

}  // namespace

void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& body) {
  static uint64_t launches = 0;
  if (scheduler().running()) throw Fault("a kernel starts a kernel");
  Order order = Order::from_environment(launches++);
  read_async_copy_mode();
  blockDim = {config.blockDim.x, config.blockDim.y, config.blockDim.z};
  gridDim = {config.gridDim.x, config.gridDim.y, config.gridDim.z};
  DynamicShared dynamic(config.dynamicSmemBytes);
  static_shared = static_shared_memory();
  for (const size_t block : order.blocks(size_t{gridDim.x} * gridDim.y * gridDim.z)) {
    blockIdx = {static_cast<unsigned>(block % gridDim.x), static_cast<unsigned>(block / gridDim.x % gridDim.y),
                static_cast<unsigned>(block / (size_t{gridDim.x} * gridDim.y))};
    dynamic_shared = dynamic.next_block();
    poison_shared();
    forget_async_copies();
    const std::string fault = scheduler().run_block(order, body);
    if (!fault.empty()) throw Fault(fault);
  }
  scheduler().end_grid();
}

unsigned block_barrier(SourceLine at, bool predicate) {
  return scheduler().barrier(at, predicate);
}

uint64_t warp_exchange(WarpOperation operation, unsigned mask, LaneInput input) {
  return scheduler().exchange(operation, mask, input);
}

unsigned lane() {
  return scheduler().lane();
}

std::byte* dynamic_shared_memory() {
  return dynamic_shared.data();
}

bool is_shared_memory(const void* address) {
  const auto* at = static_cast<const std::byte*>(address);
  const auto holds = [at](std::span<std::byte> memory) {
    return at >= memory.data() && at < memory.data() + memory.size();
  };
  return holds(dynamic_shared) || holds(static_shared);
}

void memory_fence() {
  scheduler().fence();
}

void warp_instruction(WarpInstruction& own) {
  scheduler().exchange(WarpOperation::kInstruction, ~0u, {.word = reinterpret_cast<uintptr_t>(&own)});
}

void kernel_fault(const char* text) {
  scheduler().fault(text);
}

}  // namespace emulator
