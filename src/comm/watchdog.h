// Watches over one rank's waits, and ends the job when one lasts too long.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "comm/board.h"
#include "comm/heartbeat_files.h"
#include "comm/watchdog_report.h"
#include "device/job.h"

namespace mhmoe::comm {

class Watchdog final : public Monitor {
 public:
  // Ends all ranks, after a last call that may hang; called by the watchdog's thread.
  using EndJob = std::function<void(ExitCode, const std::function<void()>& last)>;

  // machine: the ranks whose board it is, in its order.
  Watchdog(Board board, std::vector<int> machine, int rank, EndJob end_job);
  ~Watchdog() override;

  void set_timeout(double seconds);
  // Before set_folder(). job: names it, alike on all ranks; nodes: of every rank. Ranks of other nodes are seen by
  // files.
  void set_nodes(uint64_t job, std::vector<int> nodes);

  void set_step(int64_t step) override;
  void enter(std::span<const int> group, std::string_view kind, int64_t bytes, std::string_view purpose) override;
  void leave() override;
  void enter_device_wait() override;
  void on_timeout(void (*give_up)(void*), void* argument) override;
  void set_folder(const std::string& folder) override;

  // For what goes on after it was started: enter(); pause(); then, at the wait for it, resume(); leave().
  int64_t pause();  // the number to resume by
  void resume(int64_t operation);

  // True for the first rank of the machine that reports the job's end.
  bool claim_report() { return board_.claim_report(local_rank_); }

 private:
  struct Group {
    std::vector<int> ranks;
    uint64_t entered = 0;
  };

  void watch();
  void time_out();
  void warn_of_slow_rank(const Operation& operation);
  void compare_with_peers(const Operation& operation);
  std::vector<int> ranks_of(const Operation& operation);
  int local_rank_of(int rank) const;  // -1: of another machine
  bool speaks_first(const Operation& operation) const;
  void report(bool of_device, const std::optional<Operation>& operation, double waited);
  SeenRanks seen_ranks();
  std::string heartbeat_folder() const { return folder_ + "/heartbeats"; }
  static void write_flight(const SeenRanks& seen, const std::string& path);

  Board board_;
  std::vector<int> machine_;
  int rank_, local_rank_;
  RankBoard& mine_;
  EndJob end_job_;

  std::mutex mutex_;  // of what follows
  std::condition_variable wake_;
  bool stopping_ = false;
  double timeout_seconds_ = 600;
  std::string folder_;  // empty: none yet
  uint64_t job_ = 0;
  std::vector<int> nodes_;
  std::vector<std::pair<void (*)(void*), void*>> give_up_;
  std::map<uint64_t, Group> groups_;
  std::map<int, int> times_slow_;  // by rank

  std::thread thread_;
  std::optional<HeartbeatFiles> heartbeats_;
};

}  // namespace mhmoe::comm
