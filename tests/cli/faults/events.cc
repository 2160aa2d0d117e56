#include "cli/faults/events.h"

#include <csignal>
#include <cstdlib>
#include <sstream>

#include "core/error.h"
#include "core/rank.h"

namespace mhmoe::test {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

}  // namespace

Events& Events::of_this_process() {
  static Events events;
  return events;
}

Events::Events() {
  on_ = variable("FAULT_RANK") == std::to_string(process_rank());
  if (!on_) return;
  if (const std::string path = variable("EVENTS"); !path.empty()) list_.open(path);
  std::istringstream(variable("FAULT")) >> fault_ >> at_;
}

bool Events::count(const std::string& event) {
  if (!on_) return false;
  ++reached_;
  if (list_.is_open()) list_ << step_ << ' ' << event << std::endl;
  return reached_ == at_;
}

void Events::happen() const {
  std::ofstream("faulted") << fault_;
  if (fault_ == "throw") fail(ExitCode::kBadData, "a planted error");
  if (fault_ == "kill") std::raise(SIGKILL);
  if (fault_ == "stop") std::raise(SIGSTOP);
  if (fault_ == "signal") std::raise(SIGUSR1);
}

void Events::reach(const std::string& event) {
  if (count(event)) happen();
}

Fault Events::reach_collective(const std::string& event) {
  if (!count("collective " + event)) return {};
  happen();
  if (fault_ == "skip") return {.kind = Fault::Kind::kDrop};
  if (fault_ == "flip") return {.kind = Fault::Kind::kFlipBit, .bit = 5};
  return {};
}

}  // namespace mhmoe::test
