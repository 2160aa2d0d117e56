// What the ranks of every node did last, one file a node in a folder that all nodes share: for the watchdogs of other
// nodes, which have no memory in common, when MPI is stuck.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "comm/board.h"

namespace mhmoe::comm {

// A node as its last file has it.
struct SeenNode {
  double age = 0;  // of the file, by the clocks of two machines
  double period = 0;
  std::map<int, std::shared_ptr<const RankBoard>> ranks;  // times as if the file had been written now
};

// Files of another job are none.
std::optional<SeenNode> read_node(const std::string& folder, uint64_t job, int node);

// Writes this node's file again and again, in a thread that may hang on a file system without holding up anyone. Every
// rank of the node has one; the lowest whose watchdog is awake writes.
class HeartbeatFiles {
 public:
  struct Node {
    uint64_t job = 0;  // names it
    int number = 0;
    std::vector<std::pair<int, const RankBoard*>> ranks;  // this node's, ascending, with their boards
    int rank = 0;                                         // this one
  };
  HeartbeatFiles(const std::string& folder, Node node, double period_seconds);
  // The orderly end: the file is removed.
  ~HeartbeatFiles();
  HeartbeatFiles(const HeartbeatFiles&) = delete;
  HeartbeatFiles& operator=(const HeartbeatFiles&) = delete;

 private:
  struct Shared;
  static void write_on(const std::shared_ptr<Shared>& shared);

  std::shared_ptr<Shared> shared_;
  std::thread thread_;
};

}  // namespace mhmoe::comm
