// status.json: how a run stands, for whoever looks from outside.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/evaluation.h"

namespace mhmoe::train {

enum class RunState : uint8_t {
  kRunning,
  kFinished,  // all steps are done
  kStopped,   // asked to, and can be resumed
  kFailed,
};

// What is not known yet is null in the file; every key is always there.
struct RunStatus {
  RunState state = RunState::kRunning;
  int64_t step = 0;   // done
  int64_t steps = 0;  // of the whole run
  int64_t tokens = 0;
  std::optional<double> loss;               // of the last logged step; its perplexity is written too
  std::vector<ValidationScore> validation;  // the last one's
  std::optional<double> eta_seconds;
  std::optional<double> tokens_per_second;
  std::optional<int> exit_code;  // once the run has ended
  std::string message;           // why it stopped or failed
  int64_t pid = 0;
  std::string host;
  std::string started;     // utc_time() of this process's start
  std::string checkpoint;  // the newest complete one, within the run's folder
};

// A status with pid, host and start of this process filled in.
RunStatus status_of_this_process();

// "2026-11-24T07:02:35Z"
std::string utc_time(std::chrono::system_clock::time_point time);

// Replaces the file whole and stamps it with the time (`updated`). Throws as AtomicFile.
void write_status(const std::string& path, const RunStatus& status);

}  // namespace mhmoe::train
