#include "comm/watchdog_report.h"

#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

namespace mhmoe::comm {
namespace {

constexpr double kStillSeconds = 1;  // ten beats
constexpr int64_t kShown = 16;       // operations a rank

double age(int64_t time) {
  return seconds_of(now() - time);
}

// "last seen in step 41, in all_to_all #7 (...) for 2.3 s"
std::string last_seen(const SeenRank& seen) {
  const RankBoard& rank = *seen.board;
  std::string text = fmt::format("last seen in step {}", rank.step.load());
  const int64_t since = rank.waiting_since;
  const std::optional<Operation> last = rank.last();
  if (since != 0 && rank.waiting_for == RankBoard::kDeviceWait) {
    text += fmt::format(", waiting for its device for {:.1f} s", age(since));
  } else if (since != 0 && last) {
    text += fmt::format(", in {} for {:.1f} s", last->name(), age(since));
  } else if (last) {
    text += fmt::format(", outside of collectives, after {} {:.1f} s ago", last->name(), age(last->entered));
  } else {
    text += ", before any collective";
  }
  if (stands_still(rank)) {
    text += fmt::format("; its heartbeat stands still for {:.1f} s: stopped or dead", age(rank.heartbeat));
  }
  if (seen.node < 0) return text;
  return text + fmt::format(" (says node {}, {:.1f} s ago{})", seen.node, seen.file_age,
                            seen.file_old ? " and not since: all its ranks are stopped or dead" : "");
}

bool is_away(const SeenRank& seen) {
  return seen.file_old || stands_still(*seen.board);
}

std::string joined(const std::vector<std::string>& parts) {
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace

bool stands_still(const RankBoard& rank) {
  return age(rank.heartbeat) > kStillSeconds;
}

std::string describe_missing(const SeenRanks& seen, const Operation& operation, std::span<const int> group) {
  std::vector<std::string> missing, late;
  std::vector<int> elsewhere;
  for (const int number : group) {
    const auto found = seen.find(number);
    const Arrival arrival =
        found == seen.end() ? Arrival::kUnknown : found->second.board->arrival(operation.group, operation.number);
    if (arrival == Arrival::kUnknown) {
      elsewhere.push_back(number);
      continue;
    }
    const SeenRank& rank = found->second;
    if (arrival == Arrival::kNo) {
      missing.push_back(fmt::format("rank {} did not arrive: {}", number, last_seen(rank)));
    } else if (is_away(rank) || rank.board->waiting_since == 0) {
      late.push_back(fmt::format("rank {} arrived, but is not there any more: {}", number, last_seen(rank)));
    }
  }
  missing.insert(missing.end(), late.begin(), late.end());
  if (missing.empty()) missing.emplace_back(elsewhere.empty() ? "all ranks arrived" : "all ranks seen here arrived");
  if (!elsewhere.empty()) missing.push_back(fmt::format("not seen from here: ranks {}", fmt::join(elsewhere, ", ")));
  return joined(missing);
}

std::string describe_behind(const SeenRanks& seen, int rank) {
  std::vector<std::string> behind;
  const RankBoard& mine = *seen.at(rank).board;
  for (const auto& [number, other] : seen) {
    if (other.board->entered >= mine.entered && !is_away(other)) continue;
    behind.push_back(fmt::format("rank {} is behind: {}", number, last_seen(other)));
  }
  if (behind.empty()) behind.emplace_back("no rank seen here is behind");
  return joined(behind);
}

std::string flight_record(const SeenRanks& seen) {
  std::string text;
  for (const auto& [number, other] : seen) {
    const RankBoard& rank = *other.board;
    text += fmt::format("rank {}: {}; heartbeat {:.1f} s ago\n", number, last_seen(other), age(rank.heartbeat));
    const int64_t count = rank.entered;
    for (int64_t j = std::max<int64_t>(0, count - kShown); j < count; ++j) {
      const size_t at = RankBoard::slot_of(j);
      const std::optional<Operation> operation = rank.operations[at].load();
      if (!operation) continue;
      const int64_t left = rank.left[at];
      text += fmt::format(
          "  {:.3f} s ago: {}: {}\n", age(operation->entered), operation->describe(),
          left == 0 ? "not left" : fmt::format("left after {:.6f} s", seconds_of(left - operation->entered)));
    }
  }
  return text;
}

}  // namespace mhmoe::comm
