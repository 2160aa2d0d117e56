#include "emulator/async_copy.h"

#include <array>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "emulator/fault.h"
#include "races.h"
#include "scheduler.h"

namespace emulator {
namespace {

struct Pending {
  AsyncCopy copy;
  uint64_t group;
};

// What one thread has begun, in order; the first `done` of `copies` are made.
struct Queue {
  std::vector<Pending> copies;
  size_t done = 0;
  uint64_t committed = 0;

  bool empty() const { return done == copies.size(); }
  void clear() {
    copies.clear();
    done = 0;
  }
};

std::array<Queue, kMaxThreads> queues;
bool at_wait = true;
bool used = false;  // since the block began

}  // namespace

void read_async_copy_mode() {
  const char* variable = std::getenv("EMULATOR_CP_ASYNC");
  const std::string_view mode = variable == nullptr ? "wait" : variable;
  if (mode != "wait" && mode != "issue") {
    throw Fault("EMULATOR_CP_ASYNC=" + std::string(mode) + ": allowed: wait, issue");
  }
  at_wait = mode == "wait";
}

void forget_async_copies() {
  if (!used) return;
  used = false;
  for (Queue& queue : queues) queue.clear();
}

bool has_unfinished_copies(unsigned thread) {
  return used && !queues[thread].empty();
}

bool put_off(const AsyncCopy& copy) {
  if (!at_wait) return false;
  const races::Unwatched unwatched;
  used = true;
  Queue& queue = queues[scheduler().thread()];
  queue.copies.push_back({copy, queue.committed});
  return true;
}

void commit_copies() {
  ++queues[scheduler().thread()].committed;
}

bool next_finished_copy(unsigned pending, AsyncCopy& copy) {
  const races::Unwatched unwatched;
  Queue& queue = queues[scheduler().thread()];
  if (queue.empty() || queue.copies[queue.done].group + pending >= queue.committed) {
    queue.copies.erase(queue.copies.begin(), queue.copies.begin() + static_cast<ptrdiff_t>(queue.done));
    queue.done = 0;
    return false;
  }
  copy = queue.copies[queue.done++].copy;
  return true;
}

}  // namespace emulator
