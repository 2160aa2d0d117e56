// A step allocates no host memory once everything has its size, but for what oneDNN does inside. This program's
// operator new counts, and leaves out what is called from that library.
#include <dlfcn.h>
#include <execinfo.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "train/fixtures.h"

namespace {

constexpr int kFrames = 48;
std::atomic<bool> g_counting = false;
std::atomic<int64_t> g_allocations = 0;
std::array<void*, kFrames> g_first_stack;
std::atomic<int> g_first_depth = 0;

bool called_by_onednn(const std::array<void*, kFrames>& stack, int depth) {
  for (int i = 0; i < depth; ++i) {
    Dl_info info;
    if (dladdr(stack[i], &info) != 0 && std::strstr(info.dli_fname, "libdnnl") != nullptr) return true;
  }
  return false;
}

void count() {
  thread_local bool inside = false;
  if (!g_counting || inside) return;
  inside = true;
  std::array<void*, kFrames> stack{};
  const int depth = backtrace(stack.data(), kFrames);
  if (!called_by_onednn(stack, depth) && g_allocations++ == 0) {
    g_first_stack = stack;
    g_first_depth = depth;
  }
  inside = false;
}

void* allocate(size_t bytes, size_t alignment) {
  count();
  void* memory = std::aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

[[gnu::noinline]] void* operator new(size_t bytes) {
  return allocate(bytes, alignof(std::max_align_t));
}
[[gnu::noinline]] void* operator new(size_t bytes, std::align_val_t alignment) {
  return allocate(bytes, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t /*bytes*/) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t /*bytes*/, std::align_val_t /*alignment*/) noexcept {
  std::free(memory);
}

namespace mhmoe::train {
namespace {

int64_t allocations_of_a_step(const RunConfig& config, DType compute, int threads) {
  const ThreadCount count(threads);
  CpuTrainer run(config, compute);
  const HostBatch batch = random_batch(config, 1);
  std::array<void*, 1> unused;
  backtrace(unused.data(), 1);  // loads what it needs
  for (int warm_up = 0; warm_up < 2; ++warm_up) run.trainer->step(batch);
  g_allocations = 0;
  g_counting = true;
  run.trainer->step(batch);
  g_counting = false;
  if (g_allocations > 0) backtrace_symbols_fd(g_first_stack.data(), g_first_depth, 2);
  return g_allocations;
}

TEST(Allocation, CountsWhatIsAllocated) {
  g_allocations = 0;
  g_counting = true;
  const std::vector<int> vector(100);
  g_counting = false;
  EXPECT_EQ(g_allocations, 1);
  EXPECT_EQ(vector.size(), 100U);
}

TEST(Allocation, AStepAllocatesNothing) {
  RunConfig fixed = tiny_config();
  RunConfig dense = fixed, dropless = fixed, everything = fixed;
  dense.model.moe.every_n_layers = 0;
  dropless.model.moe.capacity_factor.reset();
  everything.model.moe.shared_expert_hidden_size = 12;
  everything.train.recompute = Recompute::kBlock;
  for (const RunConfig& config : {fixed, dense, dropless, everything}) {
    for (const DType compute : {DType::kF32, DType::kBF16}) {
      for (const int threads : {1, 2}) {
        EXPECT_EQ(allocations_of_a_step(config, compute, threads), 0) << to_string(compute) << ", " << threads;
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
