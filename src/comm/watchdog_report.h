// What the watchdog says when it ends a job.
#pragma once

#include <span>
#include <string>

#include "comm/board.h"

namespace mhmoe::comm {

// The ranks of a machine, in the order of their boards.
struct Machine {
  const Board& board;
  std::span<const int> ranks;

  // Where the rank's board is; -1: of another machine.
  int find(int rank) const;
};

// Who keeps the operation from its end, each with where it was last seen; ranks of other machines cannot be seen.
std::string describe_missing(const Machine& machine, const Operation& operation, std::span<const int> group);
// The same of a device that does not finish what it was given.
std::string describe_behind(const Machine& machine, int local_rank);
// The last operations of every rank, a line each.
std::string flight_record(const Machine& machine);

// True where the rank's watchdog has not moved for so long that its process must be stopped or dead.
bool stands_still(const RankBoard& rank);

}  // namespace mhmoe::comm
