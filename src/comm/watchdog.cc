#include "comm/watchdog.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <future>
#include <memory>
#include <set>

#include "core/hash.h"
#include "core/log.h"

namespace mhmoe::comm {
namespace {

constexpr std::chrono::milliseconds kBeat(100);
// For the first to speak, so that others say nothing.
constexpr std::chrono::milliseconds kGraceOfOthers(500);
// A shared file system may hang too: what is read of it, and all that is said, has its time.
constexpr std::chrono::milliseconds kLongestRead(1000), kLongestReport(3000);
// Of the timeout, between two writings of a node's file, within limits.
constexpr double kFilesInTimeout = 20, kShortestPeriod = 0.1, kLongestPeriod = 10;
// So much older than its period a file is of ranks that are stopped or dead; seconds, for clocks that differ.
constexpr double kOldPeriods = 3, kOldSeconds = 2;
constexpr double kSlowSeconds = 1, kSlowRatio = 10;
constexpr int kTimesSlow = 3;  // once may be a file that only one rank writes

template <size_t N>
void set_text(std::array<char, N>& out, std::string_view text) {
  std::copy_n(text.begin(), std::min(N, text.size()), out.begin());
}

// Whether the work came to its end in time; else it may go on as long as the process lives.
bool done_within(std::chrono::milliseconds limit, std::function<void()> work) {
  auto done = std::make_shared<std::promise<void>>();
  std::future<void> ended = done->get_future();
  std::thread([done, work = std::move(work)] {
    try {
      work();
    } catch (const std::exception& error) {
      log::error("{}", error.what());
    }
    done->set_value();
  }).detach();
  return ended.wait_for(limit) == std::future_status::ready;
}

}  // namespace

Watchdog::Watchdog(Board board, std::vector<int> machine, int rank, EndJob end_job)
    : board_(std::move(board)),
      machine_(std::move(machine)),
      rank_(rank),
      local_rank_(local_rank_of(rank)),
      mine_(board_.of(local_rank_)),
      end_job_(std::move(end_job)) {
  mine_.heartbeat = now();
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void Watchdog::set_timeout(double seconds) {
  const std::lock_guard lock(mutex_);
  timeout_seconds_ = seconds;
}

void Watchdog::set_nodes(uint64_t job, std::vector<int> nodes) {
  const std::lock_guard lock(mutex_);
  job_ = job;
  nodes_ = std::move(nodes);
}

void Watchdog::set_folder(const std::string& folder) {
  heartbeats_.reset();
  const std::lock_guard lock(mutex_);
  folder_ = folder;
  if (nodes_.empty() || *std::ranges::max_element(nodes_) == 0) return;
  HeartbeatFiles::Node node{.job = job_, .number = nodes_[static_cast<size_t>(rank_)], .ranks = {}, .rank = rank_};
  for (size_t i = 0; i < machine_.size(); ++i) {
    if (nodes_[static_cast<size_t>(machine_[i])] != node.number) continue;
    node.ranks.emplace_back(machine_[i], &board_.of(static_cast<int>(i)));
  }
  heartbeats_.emplace(heartbeat_folder(), std::move(node),
                      std::clamp(timeout_seconds_ / kFilesInTimeout, kShortestPeriod, kLongestPeriod));
}

void Watchdog::on_timeout(void (*give_up)(void*), void* argument) {
  const std::lock_guard lock(mutex_);
  std::erase_if(give_up_, [&](const auto& known) { return argument == nullptr || known.second == argument; });
  if (give_up != nullptr) give_up_.emplace_back(give_up, argument);
}

void Watchdog::set_step(int64_t step) {
  mine_.step = step;
}

int Watchdog::local_rank_of(int rank) const {
  const auto at = std::ranges::find(machine_, rank);
  return at == machine_.end() ? -1 : static_cast<int>(at - machine_.begin());
}

void Watchdog::enter(std::span<const int> group, std::string_view kind, int64_t bytes, std::string_view purpose) {
  Operation operation{.group = xxh3(group.data(), group.size_bytes()),
                      .bytes = bytes,
                      .step = mine_.step,
                      .entered = now(),
                      .group_size = static_cast<int32_t>(group.size()),
                      .first_rank = group.front()};
  set_text(operation.kind, kind);
  set_text(operation.purpose, purpose);
  {
    const std::lock_guard lock(mutex_);
    Group& known = groups_[operation.group];
    if (known.ranks.empty()) known.ranks.assign(group.begin(), group.end());
    operation.number = ++known.entered;
  }
  const int64_t index = mine_.entered;
  const size_t at = RankBoard::slot_of(index);
  mine_.left[at] = 0;
  mine_.operations[at].store(operation);
  mine_.entered = index + 1;
  compare_with_peers(operation);  // both have published before they look: at least one of two sees the other
  resume(index);
}

int64_t Watchdog::pause() {
  mine_.waiting_since = 0;
  return mine_.entered - 1;
}

void Watchdog::resume(int64_t operation) {
  mine_.waiting_for = operation;
  mine_.waiting_since = now();
}

void Watchdog::enter_device_wait() {
  resume(RankBoard::kDeviceWait);
}

void Watchdog::leave() {
  const int64_t index = mine_.waiting_for, since = mine_.waiting_since, end = now();
  mine_.waiting_since = 0;
  if (index == RankBoard::kDeviceWait || !mine_.keeps(index)) return;
  mine_.left[RankBoard::slot_of(index)] = end;
  if (seconds_of(end - since) <= kSlowSeconds) return;
  if (const std::optional<Operation> operation = mine_.kept(index)) warn_of_slow_rank(*operation);
}

void Watchdog::compare_with_peers(const Operation& operation) {
  for (const int rank : ranks_of(operation)) {
    const int local = local_rank_of(rank);
    if (local < 0 || local == local_rank_) continue;
    const std::optional<Operation> other = board_.of(local).find(operation.group, operation.number);
    if (!other || other->agrees_with(operation)) continue;
    fail(ExitCode::kInternal, "ranks call different collectives: rank {} enters {}, rank {} {}; please report it",
         rank_, operation.describe(), rank, other->describe());
  }
}

std::vector<int> Watchdog::ranks_of(const Operation& operation) {
  const std::lock_guard lock(mutex_);
  return groups_[operation.group].ranks;
}

// By the lowest rank that waited.
void Watchdog::warn_of_slow_rank(const Operation& operation) {
  std::vector<std::pair<int64_t, int>> arrivals;
  for (const int rank : ranks_of(operation)) {
    const int local = local_rank_of(rank);
    if (local < 0) continue;
    const std::optional<Operation> theirs = board_.of(local).find(operation.group, operation.number);
    if (theirs) arrivals.emplace_back(theirs->entered, rank);
  }
  if (arrivals.size() < 2) return;
  std::sort(arrivals.begin(), arrivals.end());
  const auto [slowest_time, slowest] = arrivals.back();
  arrivals.pop_back();
  for (const auto& [time, rank] : arrivals) {
    if (rank < rank_) return;
  }
  const double median = seconds_of(arrivals[arrivals.size() / 2].first - arrivals[0].first);
  const double delay = seconds_of(slowest_time - arrivals[0].first);
  if (slowest == rank_ || delay <= kSlowSeconds || delay <= kSlowRatio * median) return;
  if (++times_slow_[slowest] != kTimesSlow) return;
  log::warning(
      "rank {} is slow: in step {} it arrived at {} {:.1f} s after the first rank, half of the others within "
      "{:.3f} s; said once",
      slowest, operation.step, operation.name(), delay, median);
}

void Watchdog::watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    mine_.heartbeat = now();
    const int64_t since = mine_.waiting_since;
    if (since != 0 && seconds_of(now() - since) > timeout_seconds_) {
      lock.unlock();
      time_out();
      lock.lock();
    }
    wake_.wait_for(lock, kBeat);
  }
}

// The lowest of the ranks that wait and whose watchdogs are awake.
bool Watchdog::speaks_first(const Operation& operation) const {
  for (int local = 0; local < local_rank_; ++local) {
    const RankBoard& other = board_.of(local);
    const bool arrived = other.arrival(operation.group, operation.number) == Arrival::kYes;
    if (arrived && other.waiting_since != 0 && !stands_still(other)) return false;
  }
  return true;
}

void Watchdog::time_out() {
  const int64_t index = mine_.waiting_for, since = mine_.waiting_since;
  if (since == 0) return;
  const std::optional<Operation> operation = index == RankBoard::kDeviceWait ? mine_.last() : mine_.kept(index);
  if (operation && !speaks_first(*operation)) std::this_thread::sleep_for(kGraceOfOthers);
  if (claim_report()) {
    const double seconds = seconds_of(now() - since);
    done_within(kLongestReport, [=, this] { report(index == RankBoard::kDeviceWait, operation, seconds); });
  }
  end_job_(ExitCode::kPeerLost, [this] {
    const std::lock_guard lock(mutex_);
    for (const auto& [give_up, argument] : give_up_) give_up(argument);
  });
}

void Watchdog::report(bool of_device, const std::optional<Operation>& operation, double waited) {
  const SeenRanks seen = seen_ranks();
  const std::string seconds = fmt::format("has not finished in {:.1f} s", waited);
  std::string text = fmt::format("rank {}: step {}: ", rank_, mine_.step.load());
  if (of_device) {
    text += fmt::format("the device {} (last given: {}); {}", seconds, operation ? operation->name() : "nothing",
                        describe_behind(seen, rank_));
  } else if (operation) {
    text +=
        fmt::format("{} {}; {}", operation->name(), seconds, describe_missing(seen, *operation, ranks_of(*operation)));
  } else {
    text += fmt::format("a collective entered {} or more before the last one {}; {}", RankBoard::kOperations, seconds,
                        describe_behind(seen, rank_));
  }
  std::string file;
  {
    const std::lock_guard lock(mutex_);
    if (!folder_.empty()) file = folder_ + "/flight.log";
  }
  log::error("{} (parallel.timeout_seconds){}", text, file.empty() ? "" : "; what ranks did before: " + file);
  write_flight(seen, file);
}

// Those of this node by their boards, others by what their nodes have written.
SeenRanks Watchdog::seen_ranks() {
  SeenRanks seen;
  const std::lock_guard lock(mutex_);
  const auto node_of = [this](int rank) { return nodes_.empty() ? 0 : nodes_[static_cast<size_t>(rank)]; };
  std::set<int> others(nodes_.begin(), nodes_.end());
  others.erase(node_of(rank_));
  for (size_t i = 0; i < machine_.size(); ++i) {
    if (node_of(machine_[i]) != node_of(rank_)) continue;
    // The board outlives it.
    seen[machine_[i]].board = {std::shared_ptr<const void>(), &board_.of(static_cast<int>(i))};
  }
  if (folder_.empty() || others.empty()) return seen;
  const auto read = std::make_shared<SeenRanks>();
  const bool done = done_within(kLongestRead, [read, others, job = job_, folder = heartbeat_folder()] {
    for (const int number : others) {
      const std::optional<SeenNode> node = read_node(folder, job, number);
      if (!node) continue;
      const bool old = node->age > kOldPeriods * node->period + kOldSeconds;
      for (const auto& [rank, board] : node->ranks) (*read)[rank] = {board, number, node->age, old};
    }
  });
  if (done) seen.insert(read->begin(), read->end());
  return seen;
}

void Watchdog::write_flight(const SeenRanks& seen, const std::string& path) {
  const std::string record = flight_record(seen);
  std::FILE* file = path.empty() ? stderr : std::fopen(path.c_str(), "ae");
  if (file == nullptr) file = stderr;
  std::fwrite(record.data(), 1, record.size(), file);
  std::fflush(file);
  if (file != stderr) std::fclose(file);
}

}  // namespace mhmoe::comm
