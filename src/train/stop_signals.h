// Being asked to stop: SIGTERM, SIGINT and SIGUSR1.
#pragma once

#include <string>

namespace mhmoe::train {

// While one lives, the first of these signals is only noted, for the run to finish its step, save and end with
// ExitCode::kRequeue; a SIGTERM or SIGINT half a second after that or later ends the process at once, with
// 128 + its number, while SIGUSR1 may be repeated. One inside another changes nothing.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal that was noted; 0 if none.
  static int received();
};

// "SIGTERM"
std::string signal_name(int signal);

}  // namespace mhmoe::train
