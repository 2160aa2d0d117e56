// What a rank of the program does, event by event, and a fault at one of them.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

#include "comm/faulty_communicator.h"

namespace mhmoe::test {

// Of the rank FAULT_RANK alone. EVENTS: a file to list them in, one a line: the training step, then what it is. FAULT:
// "throw 12", "kill 12", "stop 12", "signal 12", and of collectives "skip 12" and "flip 12" (one bit of what arrives):
// at event 12, counted from 1; there the file "faulted" is written first.
class Events {
 public:
  static Events& of_this_process();

  void set_step(int64_t step) { step_ = step; }
  void reach(const std::string& event);
  Fault reach_collective(const std::string& event);

 private:
  Events();
  // Whether the fault is to be now.
  bool count(const std::string& event);
  void happen() const;

  bool on_ = false;
  std::ofstream list_;
  std::string fault_;
  int64_t at_ = 0, reached_ = 0, step_ = 0;
};

}  // namespace mhmoe::test
