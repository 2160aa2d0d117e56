#include "emulator/engine.h"

#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>

#include "emulator/async_copy.h"
#include "emulator/fault.h"
#include "emulator/stream.h"
#include "scheduler.h"
#include "static_shared.h"
#include "text.h"

namespace emulator {

Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t kMaxSharedBytes = size_t{227} << 10;
constexpr int kPoison = 0xff;

std::span<std::byte> dynamic_shared, static_shared;  // of the block that runs

struct DynamicShared {
  explicit DynamicShared(size_t bytes) : size(bytes) {
    if (bytes > 0 && posix_memalign(reinterpret_cast<void**>(&data), 128, bytes) != 0) {
      throw Fault(text("no memory for %zu bytes of shared memory", bytes));
    }
  }
  ~DynamicShared() { std::free(data); }
  DynamicShared(const DynamicShared&) = delete;
  DynamicShared& operator=(const DynamicShared&) = delete;

  std::byte* data = nullptr;
  size_t size;
};

// Shared memory is new in every block, and nobody has written it.
void poison_shared() {
  for (const auto memory : {dynamic_shared, static_shared}) {
    if (!memory.empty()) std::memset(memory.data(), kPoison, memory.size());
  }
}

void run_grid(const cudaLaunchConfig_t& config, const std::function<void()>& body) {
  static uint64_t launches = 0;
  if (scheduler().running()) throw Fault("a kernel starts a kernel");
  Order order = Order::from_environment(launches++);
  read_async_copy_mode();
  blockDim = {config.blockDim.x, config.blockDim.y, config.blockDim.z};
  gridDim = {config.gridDim.x, config.gridDim.y, config.gridDim.z};
  const DynamicShared dynamic(config.dynamicSmemBytes);
  dynamic_shared = {dynamic.data, dynamic.size};
  static_shared = static_shared_memory();
  for (const size_t block : order.blocks(size_t{gridDim.x} * gridDim.y * gridDim.z)) {
    blockIdx = {static_cast<unsigned>(block % gridDim.x), static_cast<unsigned>(block / gridDim.x % gridDim.y),
                static_cast<unsigned>(block / (size_t{gridDim.x} * gridDim.y))};
    poison_shared();
    forget_async_copies();
    const std::string fault = scheduler().run_block(order, body);
    if (!fault.empty()) throw Fault(fault);
  }
}

}  // namespace

cudaError_t launch(const cudaLaunchConfig_t& config, std::function<void()> body) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool possible = threads > 0 && threads <= kMaxThreads && grid.x > 0 && grid.x <= 0x7fffffff && grid.y > 0 &&
                        grid.y <= 65535 && grid.z > 0 && grid.z <= 65535 && config.dynamicSmemBytes <= kMaxSharedBytes;
  if (!possible) return cudaErrorInvalidConfiguration;
  return enqueue(config.stream, "a kernel", [config, body = std::move(body)] { run_grid(config, body); });
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

void warp_instruction(WarpInstruction& own) {
  scheduler().exchange(WarpOperation::kInstruction, ~0u, {.word = reinterpret_cast<uintptr_t>(&own)});
}

void kernel_fault(const char* text) {
  scheduler().fault(text);
}

}  // namespace emulator
