#include "scheduler.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "emulator/async_copy.h"
#include "text.h"

namespace emulator {
namespace {

// The lanes of a mask, from the lowest.
template <class F>
void for_each_lane(unsigned mask, F&& f) {
  for (; mask != 0; mask &= mask - 1) f(static_cast<unsigned>(std::countr_zero(mask)));
}

}  // namespace

Scheduler& scheduler() {
  static Scheduler instance;
  return instance;
}

std::string Scheduler::run_block(Order& order, const std::function<void()>& body) {
  order_ = &order;
  body_ = &body;
  thread_count_ = alive_ = blockDim.x * blockDim.y * blockDim.z;
  warp_count_ = (thread_count_ + kWarpLanes - 1) / kWarpLanes;
  waiting_ = votes_ = 0;
  for (unsigned w = 0; w < warp_count_; ++w) {
    const unsigned lanes = std::min(kWarpLanes, thread_count_ - w * kWarpLanes);
    warps_[w].alive = ready_[w] = lanes == kWarpLanes ? ~0u : (1u << lanes) - 1;
    for (Group& group : warps_[w].groups) group.arrived = 0;
  }
  std::fill_n(threads_.begin(), thread_count_, Thread{nullptr, State::kUnstarted});
  if (watched_) {
    main_.stand_here();
    tags_ = std::make_unique<BlockTags>();
    // Made here and not by the thread that needs one: it would be ordered before it.
    while (fibers_.size() < size_t{2} * thread_count_) idle_.push_back(&new_fiber());
    races::release(&begin_);
  }
  set_current(order.first_thread(thread_count_));
  switch_to(fiber_of(current_));
  if (!fault_.empty()) {
    restart_fibers();
    end_grid();
  } else if (watched_) {
    rest_fibers();
  }
  return std::exchange(fault_, {});
}

void Scheduler::end_grid() {
  if (watched_) races::acquire(&end_);
}

// After a fault, stacks of the threads that will never go on are used again from their beginning.
void Scheduler::restart_fibers() {
  idle_.clear();
  for (const auto& fiber : fibers_) {
    if (watched_) fiber->release(&end_);
    fiber->restart();
    idle_.push_back(fiber.get());
  }
}

// The block's fibers go behind those that idle already: neighbouring blocks share none.
void Scheduler::rest_fibers() {
  std::vector<Fiber*> used;
  for (unsigned t = 0; t < thread_count_; ++t) used.push_back(threads_[t].fiber);
  idle_.insert(idle_.begin(), used.begin(), used.end());
}

// Runs the current thread, then the next one that has no stack yet, and so on; leaves when the next one has its own.
void Scheduler::run_threads() {
  for (;;) {
    threads_[current_] = {fiber_, State::kReady};
    if (watched_) races::acquire(&begin_);
    (*body_)();
    if (watched_) races::release(&end_);
    exit_thread();
    const auto next = order_->next_thread(current_, ready_, warp_count_);
    if (!next && alive_ > 0) fault("deadlock: no thread can go on");
    if (next) {
      set_current(*next);
      if (threads_[*next].state == State::kUnstarted && !watched_) continue;
    }
    if (!watched_) idle_.push_back(fiber_);  // else when the block ends: two threads on one are ordered
    switch_to(next ? fiber_of(*next) : main_);
  }
}

void Scheduler::exit_thread() {
  if (has_unfinished_copies(current_)) fault("a thread exits before cp.async copies that it never waited for");
  set_state(current_, State::kExited);
  Warp& warp = warps_[current_ / kWarpLanes];
  warp.alive &= ~(1u << lane());
  if ((warp.alive & ~ready_[current_ / kWarpLanes]) != 0) {
    for (const Group& group : warp.groups) {
      if (group.arrived == 0 || (group.mask >> lane() & 1) == 0) continue;
      fault(text("a warp operation's mask %08x names a lane that exits instead", group.mask));
    }
  }
  --alive_;
  if (waiting_ > 0 && waiting_ == alive_) open_barrier();  // the barrier is for threads that have not exited
}

// The current thread cannot go on now: another one runs.
void Scheduler::wait() {
  const auto next = order_->next_thread(current_, ready_, warp_count_);
  if (!next) fault("deadlock: a barrier or warp operation that not all threads reach");
  set_current(*next);
  Fiber& fiber = fiber_of(*next);
  if (&fiber != fiber_) switch_to(fiber);
}

unsigned Scheduler::barrier(SourceLine at, bool predicate) {
  if (waiting_ == 0) barrier_at_ = at;
  if (barrier_at_.line != at.line || std::strcmp(barrier_at_.file, at.file) != 0) {
    fault(text("divergent __syncthreads: %s:%d and %s:%d", barrier_at_.file, barrier_at_.line, at.file, at.line));
  }
  const unsigned phase = phase_;
  if (watched_) races::release(&tags_->barrier[phase]);
  set_state(current_, State::kAtBarrier);
  votes_ += predicate ? 1 : 0;
  if (++waiting_ < alive_) {
    wait();
  } else {
    open_barrier();
    if (order_->yields()) wait();
  }
  if (watched_) races::acquire(&tags_->barrier[phase]);
  return last_votes_;
}

void Scheduler::open_barrier() {
  last_votes_ = std::exchange(votes_, 0);
  waiting_ = 0;
  phase_ ^= 1;
  for (unsigned t = 0; t < thread_count_; ++t) {
    if (threads_[t].state == State::kAtBarrier) set_state(t, State::kReady);
  }
}

uint64_t Scheduler::exchange(WarpOperation operation, unsigned mask, LaneInput input) {
  Warp& warp = warps_[current_ / kWarpLanes];
  const unsigned own = lane();
  if ((mask >> own & 1) == 0) fault(text("lane %u is not in the mask %08x of its warp operation", own, mask));
  if ((mask & ~warp.alive) != 0) {
    fault(text("a warp operation's mask %08x names lanes that exited (alive: %08x)", mask, warp.alive));
  }
  if (operation == WarpOperation::kShuffle && (mask >> input.source & 1) == 0) {
    fault(text("a shuffle reads lane %u outside its mask %08x", input.source, mask));
  }
  const auto first = static_cast<size_t>(std::countr_zero(mask));
  Group& group = warp.groups[first];
  if (group.arrived == 0) {
    group.mask = mask;
    group.operation = operation;
  } else if (group.mask != mask || group.operation != operation) {
    fault(text("divergent warp operations: masks %08x and %08x", group.mask, mask));
  }
  warp.inputs[own] = input;
  group.arrived |= 1u << own;
  // Shuffles and votes exchange registers; they do not order memory.
  const Tag* tag = nullptr;
  if (watched_ && operation == WarpOperation::kSync) {
    tag = &tags_->warp[current_ / kWarpLanes][first][group.phase];
    races::release(tag);
  }
  set_state(current_, State::kAtWarpOperation);
  if (group.arrived != mask) {
    wait();
  } else {
    complete(warp, group);
    if (order_->yields()) wait();
  }
  if (tag != nullptr) races::acquire(tag);
  return warp.results[own];
}

// The last lane to arrive gives all of them their results.
void Scheduler::complete(Warp& warp, Group& group) {
  const unsigned first = current_ - lane();
  if (group.operation == WarpOperation::kInstruction) {
    execute(warp);
  } else if (group.operation != WarpOperation::kSync) {
    exchange_words(warp, group);
  }
  for_each_lane(group.mask, [&](unsigned l) { set_state(first + l, State::kReady); });
  group.arrived = 0;
  group.phase ^= 1;
}

void Scheduler::exchange_words(Warp& warp, const Group& group) {
  const auto& inputs = warp.inputs;
  const auto give_all = [&](uint64_t word) { for_each_lane(group.mask, [&](unsigned l) { warp.results[l] = word; }); };
  const auto equal_to = [&](uint64_t word) {
    uint64_t equal = 0;
    for_each_lane(group.mask, [&](unsigned l) { equal |= uint64_t{inputs[l].word == word} << l; });
    return equal;
  };
  switch (group.operation) {
    case WarpOperation::kShuffle:
      return for_each_lane(group.mask, [&](unsigned l) { warp.results[l] = inputs[inputs[l].source].word; });
    case WarpOperation::kBallot:
      return give_all(equal_to(1));
    case WarpOperation::kMatch:
      return for_each_lane(group.mask, [&](unsigned l) { warp.results[l] = equal_to(inputs[l].word); });
    case WarpOperation::kReduce: {
      const auto first = static_cast<unsigned>(std::countr_zero(group.mask));
      uint64_t word = inputs[first].word;
      for_each_lane(group.mask & (group.mask - 1), [&](unsigned l) {
        if (inputs[l].combine != inputs[first].combine) fault(text("divergent reductions: lanes %u and %u", first, l));
        word = inputs[first].combine(word, inputs[l].word);
      });
      return give_all(word);
    }
    case WarpOperation::kSync:
    case WarpOperation::kInstruction:
      break;
  }
}

// More order than a device gives: a fence and an atomic operation on its both sides are taken for a lock.
void Scheduler::fence() {
  if (!watched_) return;
  races::acquire(&fence_);
  races::release(&fence_);
}

void Scheduler::execute(const Warp& warp) {
  std::array<WarpInstruction*, kWarpLanes> lanes;
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    lanes[l] = reinterpret_cast<WarpInstruction*>(static_cast<uintptr_t>(warp.inputs[l].word));
    if (lanes[l]->execute != lanes[0]->execute) fault(text("divergent warp instructions: lanes 0 and %u", l));
  }
  lanes[0]->execute(lanes.data());
}

// The stack a thread is parked on, or one for a thread that has not begun.
Fiber& Scheduler::fiber_of(unsigned thread) {
  if (threads_[thread].state != State::kUnstarted) return *threads_[thread].fiber;
  if (idle_.empty()) return new_fiber();
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
}

Fiber& Scheduler::new_fiber() {
  const Fiber::Entry entry = [] {
    Fiber::entered();
    scheduler().run_threads();
  };
  fibers_.push_back(std::make_unique<Fiber>(entry, fibers_.size()));
  return *fibers_.back();
}

void Scheduler::switch_to(Fiber& to) {
  Fiber& from = *fiber_;
  fiber_ = &to;
  from.switch_to(to);
}

void Scheduler::set_current(unsigned thread) {
  current_ = thread;
  threadIdx = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

void Scheduler::set_state(unsigned thread, State state) {
  threads_[thread].state = state;
  const uint32_t bit = 1u << thread % kWarpLanes;
  uint32_t& ready = ready_[thread / kWarpLanes];
  ready = state == State::kReady ? ready | bit : ready & ~bit;
}

void Scheduler::fault(std::string&& message) {
  fault_ = std::move(message);
  fault_ += text(" [block %u,%u,%u thread %u,%u,%u; %s]", blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y,
                 threadIdx.z, thread_states().c_str());
  switch_to(main_);
  std::abort();  // nobody switches back to a thread that failed
}

std::string Scheduler::thread_states() const {
  std::array<int, 5> counts{};
  for (unsigned t = 0; t < thread_count_; ++t) ++counts[static_cast<size_t>(threads_[t].state)];
  return text("%d not begun, %d ready, %d at __syncthreads, %d at a warp operation, %d exited", counts[0], counts[1],
              counts[2], counts[3], counts[4]);
}

}  // namespace emulator
