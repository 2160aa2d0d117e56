#include "scheduler.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "emulator/async_copy.h"
#include "text.h"

namespace emulator {

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
  set_current(order.first_thread(thread_count_));
  switch_to(fiber_of(current_));
  if (!fault_.empty()) restart_fibers();
  return std::exchange(fault_, {});
}

// After a fault, stacks of the threads that will never go on are used again from their beginning.
void Scheduler::restart_fibers() {
  idle_.clear();
  for (const auto& fiber : fibers_) {
    fiber->restart();
    idle_.push_back(fiber.get());
  }
}

// Runs the current thread, then the next one that has no stack yet, and so on; leaves when the next one has its own.
void Scheduler::run_threads() {
  for (;;) {
    threads_[current_] = {fiber_, State::kReady};
    (*body_)();
    exit_thread();
    const auto next = order_->next_thread(current_, ready_, warp_count_);
    if (!next && alive_ > 0) fault("deadlock: no thread can go on");
    if (next) {
      set_current(*next);
      if (threads_[*next].state == State::kUnstarted) continue;
    }
    idle_.push_back(fiber_);
    switch_to(next ? *threads_[*next].fiber : main_);
  }
}

void Scheduler::exit_thread() {
  if (has_unfinished_copies(current_)) fault("a thread exits before cp.async copies that it never waited for");
  set_state(current_, State::kExited);
  warps_[current_ / kWarpLanes].alive &= ~(1u << lane());
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
  set_state(current_, State::kAtBarrier);
  votes_ += predicate ? 1 : 0;
  if (++waiting_ < alive_) {
    wait();
  } else {
    open_barrier();
    if (order_->yields()) wait();
  }
  return last_votes_;
}

void Scheduler::open_barrier() {
  last_votes_ = std::exchange(votes_, 0);
  waiting_ = 0;
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
  Group& group = warp.groups[static_cast<size_t>(std::countr_zero(mask))];
  if (group.arrived == 0) {
    group.mask = mask;
    group.operation = operation;
  } else if (group.mask != mask || group.operation != operation) {
    fault(text("divergent warp operations: masks %08x and %08x", group.mask, mask));
  }
  warp.inputs[own] = input;
  group.arrived |= 1u << own;
  set_state(current_, State::kAtWarpOperation);
  if (group.arrived != mask) {
    wait();
  } else {
    complete(warp, group);
    if (order_->yields()) wait();
  }
  return warp.results[own];
}

uint64_t Scheduler::lanes_that_match(const Warp& warp, unsigned mask, unsigned lane) {
  uint64_t matches = 0;
  for (unsigned lanes = mask; lanes != 0; lanes &= lanes - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    if (warp.inputs[l].word == warp.inputs[lane].word) matches |= uint64_t{1} << l;
  }
  return matches;
}

// The last lane to arrive gives all of them their results.
void Scheduler::complete(Warp& warp, Group& group) {
  const unsigned first = current_ - lane();
  if (group.operation == WarpOperation::kInstruction) execute(warp);
  uint64_t votes = 0;
  for (unsigned lanes = group.mask; lanes != 0; lanes &= lanes - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    votes |= (warp.inputs[l].word & 1) << l;
    set_state(first + l, State::kReady);
  }
  for (unsigned lanes = group.mask; lanes != 0; lanes &= lanes - 1) {
    const auto l = static_cast<unsigned>(std::countr_zero(lanes));
    if (group.operation == WarpOperation::kShuffle) {
      warp.results[l] = warp.inputs[warp.inputs[l].source].word;
    } else {
      warp.results[l] = group.operation == WarpOperation::kMatch ? lanes_that_match(warp, group.mask, l) : votes;
    }
  }
  group.arrived = 0;
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
  if (idle_.empty()) {
    fibers_.push_back(std::make_unique<Fiber>(
        [] {
          Fiber::entered();
          scheduler().run_threads();
        },
        fibers_.size()));
    return *fibers_.back();
  }
  Fiber& fiber = *idle_.back();
  idle_.pop_back();
  return fiber;
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
