#include "objects.h"

#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "call.h"
#include "emulator/findings.h"

namespace emulator {
namespace {

// Never destroyed: programs release what they have until the very end.
struct Objects {
  std::map<uint64_t, std::string> by_number;
  std::unordered_map<const void*, uint64_t> numbers;
  uint64_t last = 0;
  std::vector<std::string> findings;
};

Objects& objects() {
  static auto* all = new Objects;
  return *all;
}

// At the end of the program this runs after all destructors, when a module is unloaded before those of the module.
[[gnu::destructor]] void report_at_unload() {
  const auto left = unreleased();
  for (const std::string& what : left) std::fprintf(stderr, "emulator: never released: %s\n", what.c_str());
  if (left.empty() && objects().findings.empty()) return;
  std::fprintf(stderr, "emulator: %zu mistakes of the program and %zu things never released\n",
               objects().findings.size(), left.size());
  std::fflush(nullptr);
  _exit(kFindingsExitStatus);
}

}  // namespace

uint64_t track(const void* handle, std::string what) {
  Objects& all = objects();
  const uint64_t number = ++all.last;
  all.numbers[handle] = number;
  all.by_number.emplace(number, std::move(what));
  return number;
}

bool forget(const void* handle) {
  Objects& all = objects();
  const auto node = all.numbers.extract(handle);
  if (node.empty()) return false;
  all.by_number.erase(node.mapped());
  return true;
}

bool alive(const void* handle) {
  return objects().numbers.contains(handle);
}

void report_finding(std::string text) {
  std::fprintf(stderr, "emulator: %s\n", text.c_str());
  objects().findings.push_back(std::move(text));
}

std::vector<std::string> take_findings() {
  const std::lock_guard lock(runtime_mutex());
  return std::exchange(objects().findings, {});
}

std::vector<std::string> unreleased() {
  const std::lock_guard lock(runtime_mutex());
  std::vector<std::string> out;
  for (const auto& [number, what] : objects().by_number)
    out.push_back(what + " (created as number " + std::to_string(number) + ")");
  return out;
}

}  // namespace emulator
