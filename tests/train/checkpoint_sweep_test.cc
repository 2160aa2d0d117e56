// Every point at which a save can end, and every error each of its calls can give.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <set>

#include "checkpoint_scenarios.h"

namespace mhmoe::train {
namespace {

// Memory that a child writes and its parent reads.
class SharedText {
 public:
  SharedText()
      : text_(static_cast<char*>(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
    if (text_ == MAP_FAILED) std::abort();
  }
  ~SharedText() { munmap(text_, kBytes); }
  SharedText(const SharedText&) = delete;
  SharedText& operator=(const SharedText&) = delete;
  void set(const std::string& text) { text_[text.copy(text_, kBytes - 1)] = '\0'; }
  std::string get() const { return text_; }

 private:
  static constexpr size_t kBytes = 4096;
  char* text_;
};

// Row 23. The points where the save was killed are all those that a recorded save has.
TEST_F(CheckpointSweep, KilledAtAnyCall) {
  SharedText death;
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.name);
    std::set<std::string> expected, visited;  // "write 3": the call's name, and which of that name
    std::map<std::string, size_t> ordinals;
    const Calls calls = recorded_calls(scenario);
    for (const auto& call : calls) expected.insert(fmt::format("{} {}", call.name, ordinals[call.name]++));
    ASSERT_GE(calls.size(), 5u);
    for (const bool half_way : {false, true}) {
      for (size_t k = 0; k <= calls.size(); ++k) {
        if (half_way && (k == calls.size() || calls[k].name != "write")) continue;
        SCOPED_TRACE(fmt::format("call {}{}", k, half_way ? ", half way" : ""));
        death.set("");
        const int code = killed_at(scenario, k, half_way, [&](const Calls& made) {
          const auto same = [&](const FaultyFileSystem::Call& call) { return call.name == made.back().name; };
          death.set(fmt::format("{} {}", made.back().name, std::ranges::count_if(made, same) - 1));
        });
        ASSERT_EQ(code, k < calls.size() ? FaultyFileSystem::kDied : 0);
        if (k < calls.size()) visited.insert(death.get());
        expect_nothing_lost(scenario);
      }
    }
    EXPECT_EQ(visited, expected);
  }
}

// Row 24, as far as a model goes: files that were not synced lose their second half, and renames whose folder was not
// synced may or may not have happened.
TEST_F(CheckpointSweep, PowerCutAtAnyCall) {
  SharedText unsynced, unsynced_renames;
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.name);
    const size_t calls = recorded_calls(scenario).size();
    for (const bool renames_kept : {false, true}) {
      for (size_t k = 0; k < calls; ++k) {
        SCOPED_TRACE(fmt::format("call {}, renames {}", k, renames_kept ? "kept" : "lost"));
        killed_at(scenario, k, false, [&](const Calls& made) {
          std::set<std::string> files, renames;
          for (size_t i = 0; i + 1 < made.size(); ++i) {
            const std::string name = fs::path(made[i].path).filename();
            if (made[i].name == "create") files.insert(name);
            if (made[i].name == "sync") files.erase(name);
            if (made[i].name == "rename") renames.insert(name);
            if (made[i].name == "sync_folder" && made[i].path == folder_) renames.clear();
          }
          unsynced.set(fmt::format("{}", fmt::join(files, "\n")));
          unsynced_renames.set(fmt::format("{}", fmt::join(renames, "\n")));
        });
        lose_what_was_not_synced(lines_of(unsynced.get()),
                                 renames_kept ? std::vector<std::string>{} : lines_of(unsynced_renames.get()));
        expect_nothing_lost(scenario);
      }
    }
  }
}

TEST_F(CheckpointSweep, EverythingIsSyncedInOrder) {
  const Calls calls = recorded_calls(scenarios()[1]);
  std::string order;
  for (const auto& call : calls) {
    std::string name = fs::path(call.path).filename();
    if (const size_t at = name.find(".tmp-"); at != std::string::npos) name.resize(at + 4);
    if (call.name != "write" && call.name != "close") order += call.name + " " + name + "\n";
  }
  EXPECT_TRUE(
      order.starts_with("make_folder step-00000003.tmp\n"
                        "create model-00001-of-00001.safetensors\n"
                        "sync model-00001-of-00001.safetensors\n"
                        "create optimizer-00001-of-00001.safetensors\n"
                        "sync optimizer-00001-of-00001.safetensors\n"
                        "create manifest.json\n"
                        "sync manifest.json\n"
                        "sync_folder step-00000003.tmp\n"
                        "rename step-00000003\n"
                        "sync_folder checkpoints\n"
                        "create latest.tmp\n"
                        "sync latest.tmp\n"
                        "rename latest\n"
                        "sync_folder checkpoints\n"
                        "rename .trash-step-00000002\n"
                        "rename .trash-step-00000001\n"
                        "sync_folder checkpoints\n"
                        "remove_file "))
      << order;
}

// Row 25: no file or folder is synced again once that has failed.
TEST_F(CheckpointSweep, AFailedSyncIsNotTriedAgain) {
  const Scenario scenario = scenarios()[1];
  const Calls calls = recorded_calls(scenario);
  for (size_t k = 0; k < calls.size(); ++k) {
    if (!calls[k].name.starts_with("sync")) continue;
    restore(scenario);
    FaultyFileSystem disk;
    disk.fail_at(k, EIO);
    EXPECT_EQ(thrown_by([&] { scenario.save(folder_); }).code, ExitCode::kIo);
    const Calls made = disk.calls();
    for (size_t i = k + 1; i < made.size(); ++i) EXPECT_FALSE(made[i].name.starts_with("sync")) << made[i].path;
  }
}

// Rows 25 to 27: an error at any call is said, the exit code is that of the error, and nothing that was there changes.
TEST_F(CheckpointSweep, AnyCallFailing) {
  const std::map<int, std::string> errors = {
      {ENOSPC, "No space left on device"}, {EIO, "Input/output error"}, {EROFS, "Read-only file system"}};
  for (const Scenario& scenario : scenarios()) {
    SCOPED_TRACE(scenario.name);
    const Calls calls = recorded_calls(scenario);
    // Up to the first rename nothing that others see has changed.
    const auto is_rename = [](const FaultyFileSystem::Call& call) { return call.name == "rename"; };
    const auto first_rename = static_cast<size_t>(std::ranges::find_if(calls, is_rename) - calls.begin());
    restore(scenario);
    const auto before = tree(folder_);
    const auto newest_before = newest_checkpoint(folder_);
    const int64_t least = newest_before ? std::min(newest_before->step(), scenario.saved) : 0;
    for (const auto& [error, text] : errors) {
      for (const size_t times : {size_t{1}, SIZE_MAX}) {  // a passing fault, a disk that stays broken
        for (size_t k = 0; k < calls.size(); ++k) {
          SCOPED_TRACE(fmt::format("{} (call {}): {}{}", calls[k].name, k, text, times == 1 ? "" : ", from then on"));
          restore(scenario);
          Thrown thrown;
          {
            FaultyFileSystem disk;
            disk.fail_at(k, error, times);
            thrown = thrown_by([&] { scenario.save(folder_); });
          }
          const bool latest = error == EROFS && calls[k].name == "create" && thrown.says("latest");
          EXPECT_EQ(thrown.code, latest ? ExitCode::kCannotCreate : ExitCode::kIo) << thrown.message;
          EXPECT_TRUE(thrown.says(text) && thrown.says(folder_)) << thrown.message;
          if (k <= first_rename) {
            const auto after = tree(folder_);
            if (times == 1) {
              EXPECT_EQ(after, before);
            }
            for (const auto& [name, bytes] : before)
              EXPECT_TRUE(after.contains(name) && after.at(name) == bytes) << name;
          }
          if (times == 1 && least > 0) {
            EXPECT_GE(newest_checkpoint(folder_)->step(), least);
          }
          expect_nothing_lost(scenario);
        }
      }
    }
  }
}

}  // namespace
}  // namespace mhmoe::train
