// A file system for tests: records every call, and at a chosen one fails, writes half, or ends the process.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "core/file_system.h"

namespace mhmoe {

// In use from its construction to its destruction. Calls are numbered from 0; close() counts like any other. Threads
// may call at once, though the numbers then depend on chance.
class FaultyFileSystem final : public FileSystem {
 public:
  struct Call {
    std::string name, path;  // rename's path is where to
    size_t bytes = 0;        // of write
  };

  static constexpr int kDied = 137;  // exit code of a process that was killed here, as the shell gives it for SIGKILL

  FaultyFileSystem() { use_file_system(this); }
  ~FaultyFileSystem() override { use_file_system(nullptr); }
  FaultyFileSystem(const FaultyFileSystem&) = delete;
  FaultyFileSystem& operator=(const FaultyFileSystem&) = delete;

  // Calls first .. first + times - 1 have no effect but this error. A failed close has closed all the same.
  void fail_at(size_t first, int error, size_t times = 1) { failure_ = {first, times, error}; }
  // Every call of that name gives the error: a full disk, a disk that cannot sync.
  void fail_every(const std::string& name, int error) { failing_names_[name] = error; }
  // The process ends in place of the call; before that, `last_words` gets all calls, this one the last.
  using LastWords = std::function<void(const std::vector<Call>&)>;
  void die_at(size_t call, LastWords last_words = {}) {
    death_ = {call, 1, 0};
    last_words_ = std::move(last_words);
  }
  // The same, but if the call is a write, half of its bytes are written first.
  void die_half_way_at(size_t call, LastWords last_words = {}) {
    die_at(call, std::move(last_words));
    half_way_ = true;
  }
  // No write takes more than this.
  void shorten_writes(size_t bytes) { longest_write_ = bytes; }

  std::vector<Call> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }
  // "create write sync ...": for comparing with what should have been.
  std::string names() const {
    std::string all;
    for (const Call& call : calls()) all += (all.empty() ? "" : " ") + call.name;
    return all;
  }

  int create(const char* path) override {
    return opened("create", path, [&] { return FileSystem::create(path); });
  }
  int open_append(const char* path) override {
    return opened("open_append", path, [&] { return FileSystem::open_append(path); });
  }
  int64_t write(int descriptor, const void* data, size_t bytes) override {
    const auto half = [&] { static_cast<void>(FileSystem::write(descriptor, data, bytes / 2)); };
    if (const int error = enter({"write", path_of(descriptor), bytes}, half)) return -error;
    return FileSystem::write(descriptor, data, bytes < longest_write_ ? bytes : longest_write_);
  }
  int truncate(int descriptor, int64_t bytes) override {
    const int error = enter({"truncate", path_of(descriptor)});
    return error != 0 ? -error : FileSystem::truncate(descriptor, bytes);
  }
  int sync(int descriptor) override {
    const int error = enter({"sync", path_of(descriptor)});
    return error != 0 ? -error : FileSystem::sync(descriptor);
  }
  int close(int descriptor) override {
    const int error = enter({"close", path_of(descriptor)});
    const int result = FileSystem::close(descriptor);
    return error != 0 ? -error : result;
  }
  int rename(const char* from, const char* to) override {
    const int error = enter({"rename", to});
    return error != 0 ? -error : FileSystem::rename(from, to);
  }
  int remove_file(const char* path) override {
    const int error = enter({"remove_file", path});
    return error != 0 ? -error : FileSystem::remove_file(path);
  }
  int remove_folder(const char* path) override {
    const int error = enter({"remove_folder", path});
    return error != 0 ? -error : FileSystem::remove_folder(path);
  }
  int make_folder(const char* path) override {
    const int error = enter({"make_folder", path});
    return error != 0 ? -error : FileSystem::make_folder(path);
  }
  int sync_folder(const char* path) override {
    const int error = enter({"sync_folder", path});
    return error != 0 ? -error : FileSystem::sync_folder(path);
  }

 private:
  struct Range {
    size_t first = SIZE_MAX, times = 0;
    int error = 0;
    bool holds(size_t call) const { return call >= first && call - first < times; }
  };

  // Records the call; returns the error it shall give, or 0.
  int enter(const Call& call, const std::function<void()>& half = {}) {
    const std::lock_guard lock(mutex_);
    const size_t number = calls_.size();
    calls_.push_back(call);
    if (death_.holds(number)) {
      if (half_way_ && half) half();
      if (last_words_) last_words_(calls_);
      _exit(kDied);
    }
    if (failure_.holds(number)) return failure_.error;
    const auto named = failing_names_.find(call.name);
    return named == failing_names_.end() ? 0 : named->second;
  }

  int opened(const char* name, const char* path, const std::function<int()>& open) {
    if (const int error = enter({name, path})) return -error;
    const int descriptor = open();
    const std::lock_guard lock(mutex_);
    if (descriptor >= 0) paths_[descriptor] = path;
    return descriptor;
  }

  std::string path_of(int descriptor) const {
    const std::lock_guard lock(mutex_);
    const auto found = paths_.find(descriptor);
    return found == paths_.end() ? "" : found->second;
  }

  mutable std::mutex mutex_;
  std::vector<Call> calls_;
  std::map<int, std::string> paths_;
  std::map<std::string, int> failing_names_;
  Range failure_, death_;
  LastWords last_words_;
  bool half_way_ = false;
  size_t longest_write_ = SIZE_MAX;
};

// Runs `work` in a forked child and returns its exit code: 0 if it returned, 1 if it threw, 128 + N for signal N.
inline int exit_code_in_child(const std::function<void()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    try {
      work();
    } catch (...) {
      _exit(1);
    }
    _exit(0);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) std::abort();
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace mhmoe
