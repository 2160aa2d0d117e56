#include "comm/heartbeat_files.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <utility>

#include "comm/watchdog_report.h"
#include "core/hash.h"
#include "core/log.h"

namespace mhmoe::comm {
namespace {

constexpr uint64_t kMagic = 0x3274616562656874;  // with the layout's version
constexpr size_t kKept = 32;                     // operations of a rank
constexpr std::chrono::seconds kLongestEnd(2);

// As it lies in the file. All nodes run the same program.
struct RankRecord {
  int64_t rank, step, heartbeat, waiting_since, waiting_for, entered;
  std::array<Operation, kKept> last;  // the latest first; kind empty: none
  std::array<int64_t, kKept> left;    // each one's; 0: not yet
};
struct Header {
  uint64_t magic, job;
  int64_t written, wall_clock;  // both nanoseconds, of now() and of the calendar
  double period;
  int64_t ranks;
};
static_assert(std::is_trivially_copyable_v<RankRecord> && std::is_trivially_copyable_v<Header>);

int64_t calendar() {
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time).count();
}

std::string file_of(const std::string& folder, int node) {
  return fmt::format("{}/node-{:04}", folder, node);
}

RankRecord record_of(int rank, const RankBoard& board) {
  RankRecord record{.rank = rank,
                    .step = board.step,
                    .heartbeat = board.heartbeat,
                    .waiting_since = board.waiting_since,
                    .waiting_for = board.waiting_for,
                    .entered = board.entered,
                    .last = {},
                    .left = {}};
  for (size_t i = 0; i < std::min<size_t>(kKept, static_cast<size_t>(record.entered)); ++i) {
    const size_t at = RankBoard::slot_of(record.entered - 1 - static_cast<int64_t>(i));
    record.last[i] = board.operations[at].load().value_or(Operation{});
    record.left[i] = board.left[at];
  }
  return record;
}

std::shared_ptr<const RankBoard> board_of(const RankRecord& record, int64_t shift) {
  const auto shifted = [shift](int64_t time) { return time == 0 ? 0 : time + shift; };
  auto board = std::make_shared<RankBoard>();
  board->step = record.step;
  board->heartbeat = shifted(record.heartbeat);
  board->waiting_since = shifted(record.waiting_since);
  board->waiting_for = record.waiting_for;
  board->entered = record.entered;
  for (size_t i = 0; i < kKept; ++i) {
    Operation operation = record.last[i];
    if (operation.kind[0] == 0) continue;
    operation.entered = shifted(operation.entered);
    const size_t at = RankBoard::slot_of(record.entered - 1 - static_cast<int64_t>(i));
    board->operations[at].store(operation);
    board->left[at] = shifted(record.left[i]);
  }
  return board;
}

template <class T>
void append(std::string& text, const T& value) {
  text.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

// By its other name first, so that a reader sees a whole file. Returns an errno, 0 where all went well.
int replace_file(const std::string& path, const std::string& other, const std::string& text) {
  const int file = open(other.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (file < 0) return errno;
  const ssize_t written = write(file, text.data(), text.size());
  int error = written < 0 ? errno : 0;
  if (error == 0 && written < static_cast<ssize_t>(text.size())) error = ENOSPC;
  if (close(file) != 0 && error == 0) error = errno;
  if (error == 0 && std::rename(other.c_str(), path.c_str()) != 0) error = errno;
  return error;
}

}  // namespace

std::optional<SeenNode> read_node(const std::string& folder, uint64_t job, int node) {
  std::ifstream file(file_of(folder, node), std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  Header header{};
  uint64_t sum = 0;
  if (text.size() < sizeof(header) + sizeof(sum)) return {};
  std::memcpy(&header, text.data(), sizeof(header));
  const size_t body = text.size() - sizeof(header) - sizeof(sum);
  std::memcpy(&sum, text.data() + text.size() - sizeof(sum), sizeof(sum));
  if (header.magic != kMagic || header.job != job || body != static_cast<size_t>(header.ranks) * sizeof(RankRecord) ||
      sum != xxh3(text.data(), text.size() - sizeof(sum))) {
    return {};
  }
  SeenNode seen{.age = seconds_of(calendar() - header.wall_clock), .period = header.period, .ranks = {}};
  for (size_t at = sizeof(header); at < sizeof(header) + body; at += sizeof(RankRecord)) {
    RankRecord record{};
    std::memcpy(&record, text.data() + at, sizeof(record));
    seen.ranks[static_cast<int>(record.rank)] = board_of(record, now() - header.written);
  }
  return seen;
}

// The boards may go when the thread's owner does: it looks at them under the lock and not when it is abandoned.
struct HeartbeatFiles::Shared {
  std::string folder;
  Node node;
  double period = 0;

  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false, ended = false, abandoned = false;

  bool is_writer() const {
    for (const auto& [rank, board] : node.ranks) {
      if (rank == node.rank) return true;
      if (!stands_still(*board)) return false;
    }
    return false;
  }
  std::string text() const {
    std::string text;
    append(text, Header{.magic = kMagic,
                        .job = node.job,
                        .written = now(),
                        .wall_clock = calendar(),
                        .period = period,
                        .ranks = static_cast<int64_t>(node.ranks.size())});
    for (const auto& [rank, board] : node.ranks) append(text, record_of(rank, *board));
    append(text, xxh3(text.data(), text.size()));
    return text;
  }
};

void HeartbeatFiles::write_on(const std::shared_ptr<Shared>& shared) {
  const std::string path = file_of(shared->folder, shared->node.number);
  const std::string other = fmt::format("{}.of-rank-{}", path, shared->node.rank);
  std::unique_lock lock(shared->mutex);
  bool tried = false, warned = false;
  while (!shared->stopping) {
    if (shared->is_writer()) {
      const std::string text = shared->text();
      lock.unlock();
      mkdir(shared->folder.c_str(), 0755);  // by whoever comes first
      const int error = replace_file(path, other, text);
      tried = true;
      if (error != 0 && !std::exchange(warned, true)) {
        log::warning(
            "{}: cannot be written: {}; as long as it is so, watchdogs of other nodes do not see what this node's "
            "ranks do; said once",
            path, std::strerror(error));
      }
      lock.lock();
    }
    shared->changed.wait_for(lock, std::chrono::duration<double>(shared->period), [&] { return shared->stopping; });
  }
  const bool is_last = tried && !shared->abandoned && shared->is_writer();
  lock.unlock();
  if (tried) unlink(other.c_str());
  if (is_last) {
    unlink(path.c_str());           // else it is another rank's
    rmdir(shared->folder.c_str());  // by whoever is last
  }
  lock.lock();
  shared->ended = true;
  shared->changed.notify_all();
}

HeartbeatFiles::HeartbeatFiles(const std::string& folder, Node node, double period_seconds)
    : shared_(std::make_shared<Shared>()) {
  shared_->folder = folder;
  shared_->node = std::move(node);
  shared_->period = period_seconds;
  thread_ = std::thread([shared = shared_] { write_on(shared); });
}

HeartbeatFiles::~HeartbeatFiles() {
  std::unique_lock lock(shared_->mutex);
  shared_->stopping = true;
  shared_->changed.notify_all();
  const bool ended = shared_->changed.wait_for(lock, kLongestEnd, [this] { return shared_->ended; });
  shared_->abandoned = !ended;
  lock.unlock();
  if (ended) {
    thread_.join();
  } else {
    thread_.detach();  // it hangs on the file system
  }
}

}  // namespace mhmoe::comm
