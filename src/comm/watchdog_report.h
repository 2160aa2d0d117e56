// What the watchdog says when it ends a job.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>

#include "comm/board.h"

namespace mhmoe::comm {

// A rank as it can be seen from here.
struct SeenRank {
  std::shared_ptr<const RankBoard> board;
  int node = -1;          // whose file tells of it; -1: it is of this machine
  double file_age = 0;    // seconds
  bool file_old = false;  // so old that its writers must be stopped or dead
};
// By number. Ranks of other nodes that have left no file are not there.
using SeenRanks = std::map<int, SeenRank>;

// Who keeps the operation from its end, each with where it was last seen.
std::string describe_missing(const SeenRanks& seen, const Operation& operation, std::span<const int> group);
// The same of a rank's device that does not finish what it was given.
std::string describe_behind(const SeenRanks& seen, int rank);
// The last operations of every rank, a line each.
std::string flight_record(const SeenRanks& seen);

// True where the rank's watchdog has not moved for so long that its process must be stopped or dead.
bool stands_still(const RankBoard& rank);

}  // namespace mhmoe::comm
