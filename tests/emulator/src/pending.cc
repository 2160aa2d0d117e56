#include "pending.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include "call.h"
#include "emulator/fault.h"
#include "random.h"

namespace emulator {
namespace {

constexpr size_t kAll = std::numeric_limits<size_t>::max();
constexpr size_t kPiecesAQuery = 16;

struct Mode {
  bool deferred = false;
  uint64_t random = 0;
};

Mode parse(std::string_view text) {
  if (text == "eager") return {};
  constexpr std::string_view kDeferred = "deferred:";
  Mode mode{.deferred = true};
  if (text.starts_with(kDeferred)) {
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data() + kDeferred.size(), end, mode.random);
    if (parsed.ec == std::errc() && parsed.ptr == end) return mode;
  }
  throw Fault("EMULATOR_STREAMS=" + std::string(text) + ": allowed: eager, deferred:SEED");
}

// As the environment says now; random numbers begin anew whenever it changes.
Mode& mode() {
  static auto* text = new std::string("eager");
  static auto* current = new Mode;
  const char* variable = std::getenv("EMULATOR_STREAMS");
  const std::string_view now = variable == nullptr ? "eager" : variable;
  if (now != *text) {
    *current = parse(now);
    *text = now;
  }
  return *current;
}

}  // namespace

Pending& pending() {
  static auto* all = new Pending;
  return *all;
}

WorkId Pending::add(std::vector<WorkId> after, std::function<void()> run) {
  std::erase_if(after, [this](WorkId id) { return done(id); });
  const WorkId id = ++last_;
  work_.emplace(id, Work{std::move(after), std::move(run)});
  if (!mode().deferred) run_some(plan({&id, 1}), kAll);
  return id;
}

Pending::Plan Pending::plan(std::span<const WorkId> targets) const {
  Plan plan;
  std::vector<WorkId> open(targets.begin(), targets.end());
  while (!open.empty()) {
    const WorkId id = open.back();
    open.pop_back();
    const auto found = work_.find(id);
    if (found == work_.end() || plan.waits.contains(id)) continue;
    size_t& waits = plan.waits[id];
    for (const WorkId before : found->second.after) {
      if (done(before)) continue;
      ++waits;
      plan.followers[before].push_back(id);
      open.push_back(before);
    }
  }
  for (const auto& [id, waits] : plan.waits) {
    if (waits == 0) plan.ready.push_back(id);
  }
  return plan;
}

// In the order in which the program asked for it, or a random piece.
WorkId Pending::take_one(std::vector<WorkId>& ready) {
  auto at = std::ranges::min_element(ready);
  if (mode().deferred) at = ready.begin() + static_cast<ptrdiff_t>(next_random(mode().random) % ready.size());
  const WorkId id = *at;
  ready.erase(at);
  return id;
}

Pending::Outcome Pending::run_one(WorkId id) {
  auto node = work_.extract(id);
  if (node.empty() || !node.mapped().run || device_is_broken()) return Outcome::kDone;
  try {
    node.mapped().run();
  } catch (const Unfinished& unfinished) {
    work_.insert(std::move(node));
    return unfinished.lost ? Outcome::kLost : Outcome::kUnfinished;
  } catch (...) {
    work_.clear();
    throw;
  }
  return Outcome::kDone;
}

bool Pending::run_some(Plan todo, size_t most) {
  bool complete = true;
  for (; !todo.ready.empty() && most > 0; --most) {
    const WorkId id = take_one(todo.ready);
    const Outcome outcome = run_one(id);
    complete = complete && outcome != Outcome::kLost;
    if (outcome == Outcome::kUnfinished) todo.ready.push_back(id);
    if (outcome != Outcome::kDone) continue;
    for (const WorkId follower : todo.followers[id]) {
      if (--todo.waits[follower] == 0) todo.ready.push_back(follower);
    }
  }
  return complete;
}

void Pending::run(std::span<const WorkId> targets) {
  if (!run_some(plan(targets), kAll)) throw Fault("the host waits for a device that waits for a lost rank for ever");
}

void Pending::run_all() {
  std::vector<WorkId> all;
  for (const auto& [id, work] : work_) all.push_back(id);
  run(all);
}

void Pending::step(WorkId target) {
  run_some(plan({&target, 1}), kPiecesAQuery);
}

}  // namespace emulator
