#include "emulator/engine.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "emulator/fiber.h"
#include "emulator/order.h"
#include "emulator/static_shared.h"

namespace mhmoe::emulator {

Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr unsigned kMaxThreads = kWarpLanes * kMaxWarps;
constexpr size_t kMaxSharedBytes = size_t{227} << 10;
constexpr int kPoison = 0xff;

enum class State : uint8_t { kUnstarted, kReady, kAtBarrier, kAtWarpOperation, kExited };

struct Thread {
  Fiber* fiber;
  State state;
};

// Lanes gathering for one warp operation.
struct Group {
  unsigned arrived = 0, mask = 0;
  WarpOperation operation = WarpOperation::kSync;
};

struct Warp {
  unsigned alive = 0;
  std::array<LaneInput, kWarpLanes> inputs;
  std::array<uint64_t, kWarpLanes> results;
  std::array<Group, kWarpLanes> groups;  // by lowest lane of the mask
};

struct DynamicShared {
  explicit DynamicShared(size_t bytes) : size(bytes) {
    if (bytes > 0 && posix_memalign(reinterpret_cast<void**>(&data), 128, bytes) != 0) {
      fail(ExitCode::kMemory, "emulator: no memory for {} bytes of shared memory", bytes);
    }
  }
  ~DynamicShared() { std::free(data); }
  DynamicShared(const DynamicShared&) = delete;
  DynamicShared& operator=(const DynamicShared&) = delete;

  std::byte* data = nullptr;
  size_t size;
};

class Engine {
 public:
  void run(const cudaLaunchConfig_t& config, void (*body)(void*), void* data);
  unsigned barrier(SourceLine at, bool predicate);
  uint64_t exchange(WarpOperation operation, unsigned mask, LaneInput input);
  unsigned lane() const { return current_ % kWarpLanes; }
  std::byte* dynamic_shared() const { return dynamic_shared_; }

 private:
  void run_block(size_t block);
  void poison_shared(const DynamicShared& dynamic);
  [[noreturn]] void run_threads();  // a fiber's whole life
  void exit_thread();
  void wait();
  void open_barrier();
  void complete(Warp& warp, Group& group);
  Fiber& fiber_of(unsigned thread);
  void switch_to(Fiber& to);
  void set_current(unsigned thread);
  void set_state(unsigned thread, State state);
  [[noreturn]] void fault(std::string message);
  std::string thread_states() const;

  std::array<Warp, kMaxWarps> warps_;
  std::array<uint32_t, kMaxWarps> ready_{};
  std::array<Thread, kMaxThreads> threads_;
  Order order_;
  uint64_t launches_ = 0;

  Fiber main_;
  Fiber* fiber_ = &main_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;

  void (*body_)(void*) = nullptr;
  void* data_ = nullptr;
  std::byte* dynamic_shared_ = nullptr;
  unsigned current_ = 0, thread_count_ = 0, warp_count_ = 0, alive_ = 0;
  unsigned waiting_ = 0, votes_ = 0, last_votes_ = 0;  // at the block's barrier
  SourceLine barrier_at_{};
  std::string fault_;
};

Engine& engine() {
  static Engine instance;
  return instance;
}

void Engine::run(const cudaLaunchConfig_t& config, void (*body)(void*), void* data) {
  MHMOE_CHECK(fiber_ == &main_, "emulator: a kernel starts a kernel");
  order_ = Order::from_environment(launches_++);
  blockDim = {config.blockDim.x, config.blockDim.y, config.blockDim.z};
  gridDim = {config.gridDim.x, config.gridDim.y, config.gridDim.z};
  thread_count_ = blockDim.x * blockDim.y * blockDim.z;
  warp_count_ = (thread_count_ + kWarpLanes - 1) / kWarpLanes;
  body_ = body;
  data_ = data;
  const DynamicShared dynamic(config.dynamicSmemBytes);
  dynamic_shared_ = dynamic.data;
  for (const size_t block : order_.blocks(size_t{gridDim.x} * gridDim.y * gridDim.z)) {
    poison_shared(dynamic);
    run_block(block);
    if (fault_.empty()) continue;
    // Stacks of the threads that will never go on are used again from their beginning.
    idle_.clear();
    for (const auto& fiber : fibers_) {
      fiber->restart();
      idle_.push_back(fiber.get());
    }
    fail(ExitCode::kInternal, "emulator: {}", std::exchange(fault_, {}));
  }
}

void Engine::poison_shared(const DynamicShared& dynamic) {
  if (dynamic.size > 0) std::memset(dynamic.data, kPoison, dynamic.size);
  const auto memory = static_shared_memory();
  std::memset(memory.data(), kPoison, memory.size());
}

void Engine::run_block(size_t block) {
  blockIdx = {static_cast<unsigned>(block % gridDim.x), static_cast<unsigned>(block / gridDim.x % gridDim.y),
              static_cast<unsigned>(block / (size_t{gridDim.x} * gridDim.y))};
  alive_ = thread_count_;
  waiting_ = votes_ = 0;
  for (unsigned w = 0; w < warp_count_; ++w) {
    const unsigned lanes = std::min(kWarpLanes, thread_count_ - w * kWarpLanes);
    warps_[w].alive = ready_[w] = lanes == kWarpLanes ? ~0u : (1u << lanes) - 1;
    for (Group& group : warps_[w].groups) group.arrived = 0;
  }
  std::fill_n(threads_.begin(), thread_count_, Thread{nullptr, State::kUnstarted});
  set_current(order_.first_thread(thread_count_));
  switch_to(fiber_of(current_));
}

// Runs the current thread, then the next one that has no stack yet, and so on; leaves when the next one has its own.
void Engine::run_threads() {
  for (;;) {
    threads_[current_] = {fiber_, State::kReady};
    body_(data_);
    exit_thread();
    const auto next = order_.next_thread(current_, ready_, warp_count_);
    if (!next && alive_ > 0) fault("deadlock: no thread can go on");
    if (next) {
      set_current(*next);
      if (threads_[*next].state == State::kUnstarted) continue;
    }
    idle_.push_back(fiber_);
    switch_to(next ? *threads_[*next].fiber : main_);
  }
}

void Engine::exit_thread() {
  set_state(current_, State::kExited);
  warps_[current_ / kWarpLanes].alive &= ~(1u << lane());
  --alive_;
  if (waiting_ > 0 && waiting_ == alive_) open_barrier();  // the barrier is for threads that have not exited
}

// The current thread cannot go on now: another one runs.
void Engine::wait() {
  const auto next = order_.next_thread(current_, ready_, warp_count_);
  if (!next) fault("deadlock: a barrier or warp operation that not all threads reach");
  set_current(*next);
  Fiber& fiber = fiber_of(*next);
  if (&fiber != fiber_) switch_to(fiber);
}

unsigned Engine::barrier(SourceLine at, bool predicate) {
  if (waiting_ == 0) barrier_at_ = at;
  if (barrier_at_.line != at.line || std::strcmp(barrier_at_.file, at.file) != 0) {
    fault(
        fmt::format("divergent __syncthreads: {}:{} and {}:{}", barrier_at_.file, barrier_at_.line, at.file, at.line));
  }
  set_state(current_, State::kAtBarrier);
  votes_ += predicate ? 1 : 0;
  if (++waiting_ < alive_) {
    wait();
  } else {
    open_barrier();
    if (order_.yields()) wait();
  }
  return last_votes_;
}

void Engine::open_barrier() {
  last_votes_ = std::exchange(votes_, 0);
  waiting_ = 0;
  for (unsigned t = 0; t < thread_count_; ++t) {
    if (threads_[t].state == State::kAtBarrier) set_state(t, State::kReady);
  }
}

uint64_t Engine::exchange(WarpOperation operation, unsigned mask, LaneInput input) {
  Warp& warp = warps_[current_ / kWarpLanes];
  const unsigned own = lane();
  if ((mask >> own & 1) == 0) fault(fmt::format("lane {} is not in the mask {:08x} of its warp operation", own, mask));
  if ((mask & ~warp.alive) != 0) {
    fault(fmt::format("a warp operation's mask {:08x} names lanes that exited (alive: {:08x})", mask, warp.alive));
  }
  if (operation == WarpOperation::kShuffle && (mask >> input.source & 1) == 0) {
    fault(fmt::format("a shuffle reads lane {} outside its mask {:08x}", input.source, mask));
  }
  Group& group = warp.groups[static_cast<size_t>(std::countr_zero(mask))];
  if (group.arrived == 0) {
    group.mask = mask;
    group.operation = operation;
  } else if (group.mask != mask || group.operation != operation) {
    fault(fmt::format("divergent warp operations: masks {:08x} and {:08x}", group.mask, mask));
  }
  warp.inputs[own] = input;
  group.arrived |= 1u << own;
  set_state(current_, State::kAtWarpOperation);
  if (group.arrived != mask) {
    wait();
  } else {
    complete(warp, group);
    if (order_.yields()) wait();
  }
  return warp.results[own];
}

// The last lane to arrive gives all of them their results.
void Engine::complete(Warp& warp, Group& group) {
  const unsigned first = current_ - lane();
  uint64_t votes = 0;
  for (unsigned lanes = group.mask; lanes != 0; lanes &= lanes - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    votes |= (warp.inputs[l].word & 1) << l;
    set_state(first + l, State::kReady);
  }
  for (unsigned lanes = group.mask; lanes != 0; lanes &= lanes - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    warp.results[l] = group.operation == WarpOperation::kShuffle ? warp.inputs[warp.inputs[l].source].word : votes;
  }
  group.arrived = 0;
}

// The stack a thread is parked on, or one for a thread that has not begun.
Fiber& Engine::fiber_of(unsigned thread) {
  if (threads_[thread].state != State::kUnstarted) return *threads_[thread].fiber;
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(
        [] {
          Fiber::entered();
          engine().run_threads();
        },
        fibers_.size()));
    return *fibers_.back();
  }
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
}

void Engine::switch_to(Fiber& to) {
  Fiber& from = *fiber_;
  fiber_ = &to;
  from.switch_to(to);
}

void Engine::set_current(unsigned thread) {
  current_ = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

void Engine::set_state(unsigned thread, State state) {
  threads_[thread].state = state;
  const uint32_t bit = 1u << thread % kWarpLanes;
  uint32_t& ready = ready_[thread / kWarpLanes];
  ready = state == State::kReady ? ready | bit : ready & ~bit;
}

void Engine::fault(std::string message) {
  fault_ = fmt::format("{} [block {},{},{} thread {},{},{}; {}]", message, blockIdx.x, blockIdx.y, blockIdx.z,
                       threadIdx.x, threadIdx.y, threadIdx.z, thread_states());
  switch_to(main_);
  std::abort();  // nobody switches back to a thread that failed
}

std::string Engine::thread_states() const {
  std::array<int, 5> counts{};
  for (unsigned t = 0; t < thread_count_; ++t) ++counts[static_cast<size_t>(threads_[t].state)];
  return fmt::format("{} not begun, {} ready, {} at __syncthreads, {} at a warp operation, {} exited", counts[0],
                     counts[1], counts[2], counts[3], counts[4]);
}

}  // namespace

cudaError_t run_grid(const cudaLaunchConfig_t& config, void (*body)(void*), void* data) {
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  const bool possible = threads > 0 && threads <= kMaxThreads && grid.x > 0 && grid.x <= 0x7fffffff && grid.y > 0 &&
                        grid.y <= 65535 && grid.z > 0 && grid.z <= 65535 && config.dynamicSmemBytes <= kMaxSharedBytes;
  if (!possible) return cudaErrorInvalidConfiguration;
  engine().run(config, body, data);
  return cudaSuccess;
}

unsigned block_barrier(SourceLine at, bool predicate) {
  return engine().barrier(at, predicate);
}

uint64_t warp_exchange(WarpOperation operation, unsigned mask, LaneInput input) {
  return engine().exchange(operation, mask, input);
}

unsigned lane() {
  return engine().lane();
}

std::byte* dynamic_shared_memory() {
  return engine().dynamic_shared();
}

}  // namespace mhmoe::emulator
