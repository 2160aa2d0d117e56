// The threads of one block: who runs, who waits for whom.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "emulator/engine.h"
#include "fiber.h"
#include "order.h"
#include "races.h"

namespace emulator {

constexpr unsigned kMaxThreads = kWarpLanes * kMaxWarps;

class Scheduler {
 public:
  // Runs body once for every thread of a block of blockDim. Returns the fault that ended it, empty if none did.
  std::string run_block(Order& order, const std::function<void()>& body);
  // After the last block: what the grid did is ordered before what the program does next.
  void end_grid();
  bool running() const { return fiber_ != &main_; }

  // Called on a thread of the block: engine.h.
  unsigned barrier(SourceLine at, bool predicate);
  uint64_t exchange(WarpOperation operation, unsigned mask, LaneInput input);
  void fence();
  unsigned lane() const { return current_ % kWarpLanes; }
  // Its number in the block.
  unsigned thread() const { return current_; }
  // Ends the block. This stack is left for good, so nothing that owns memory may be on it.
  [[noreturn]] void fault(std::string&& message);

 private:
  enum class State : uint8_t { kUnstarted, kReady, kAtBarrier, kAtWarpOperation, kExited };
  struct Thread {
    Fiber* fiber;
    State state;
  };
  // Lanes gathering for one warp operation.
  struct Group {
    unsigned arrived = 0, mask = 0;
    WarpOperation operation = WarpOperation::kSync;
    unsigned phase = 0;
  };
  struct Warp {
    unsigned alive = 0;
    std::array<LaneInput, kWarpLanes> inputs;
    std::array<uint64_t, kWarpLanes> results;
    std::array<Group, kWarpLanes> groups;  // by lowest lane of the mask
  };

  // What orders memory, for ThreadSanitizer. A barrier's phases take turns: who leaves late must not be ordered after
  // those who are at the next barrier already.
  struct Tag {
    uint64_t unused;
  };
  struct BlockTags {
    std::array<Tag, 2> barrier;
    std::array<std::array<std::array<Tag, 2>, kWarpLanes>, kMaxWarps> warp;
  };

  [[noreturn]] void run_threads();  // a fiber's whole life
  void exit_thread();
  void wait();
  void open_barrier();
  void complete(Warp& warp, Group& group);
  void exchange_words(Warp& warp, const Group& group);
  void execute(const Warp& warp);
  Fiber& fiber_of(unsigned thread);
  Fiber& new_fiber();
  void switch_to(Fiber& to);
  void set_current(unsigned thread);
  void set_state(unsigned thread, State state);
  void restart_fibers();
  void rest_fibers();
  std::string thread_states() const;

  std::array<Warp, kMaxWarps> warps_;
  std::array<uint32_t, kMaxWarps> ready_{};
  std::array<Thread, kMaxThreads> threads_;
  Order* order_ = nullptr;

  Fiber main_;
  Fiber* fiber_ = &main_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;  // the last one goes first

  const std::function<void()>* body_ = nullptr;
  unsigned current_ = 0, thread_count_ = 0, warp_count_ = 0, alive_ = 0;
  unsigned waiting_ = 0, phase_ = 0, votes_ = 0, last_votes_ = 0;  // at the block's barrier
  SourceLine barrier_at_{};
  std::string fault_;

  const bool watched_ = races::watched();
  Tag begin_{}, end_{}, fence_{};  // the grid's
  std::unique_ptr<BlockTags> tags_;
};

Scheduler& scheduler();

}  // namespace emulator
