// Work that was put on streams and has not run yet, and what each piece of it must wait for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

namespace emulator {

// Pieces of work are numbered in the order in which the program asks for them; 0 is no work at all.
using WorkId = uint64_t;

// Thrown by a piece of work that could not end yet, because another process has its part in it: it is run again.
struct Unfinished {
  bool lost;  // it will not end, whatever else this process runs
};

// EMULATOR_STREAMS=eager (default): work runs when it is put on a stream, as early as a device may run it.
// deferred:SEED: it runs when the host waits for it, and then only what it waits for, in a random order out of those
// that streams and events permit.
class Pending {
 public:
  WorkId add(std::vector<WorkId> after, std::function<void()> run);
  bool done(WorkId id) const { return !work_.contains(id); }
  // Runs this work and what it waits for. If one piece of work throws, all that is pending is forgotten: no device
  // goes on after a fault. Throws Fault where work is lost, for which a device would wait for ever.
  void run(std::span<const WorkId> targets);
  void run_all();
  // Runs some pieces out of all that `target` waits for.
  void step(WorkId target);

 private:
  struct Work {
    std::vector<WorkId> after;
    std::function<void()> run;
  };
  // Work still to run until all targets are done, by how many pieces of it each waits for.
  struct Plan {
    std::map<WorkId, size_t> waits;
    std::map<WorkId, std::vector<WorkId>> followers;
    std::vector<WorkId> ready;
  };

  enum class Outcome : uint8_t { kDone, kUnfinished, kLost };

  Plan plan(std::span<const WorkId> targets) const;
  WorkId take_one(std::vector<WorkId>& ready);
  Outcome run_one(WorkId id);
  // Runs at most so many pieces of the plan. Returns whether none of them was lost.
  bool run_some(Plan todo, size_t most);

  std::map<WorkId, Work> work_;
  WorkId last_ = 0;
};

Pending& pending();

}  // namespace emulator
