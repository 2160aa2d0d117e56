// Saves to be cut short: what there is before them, and what may be the newest checkpoint after.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

#include "checkpoint_fixture.h"
#include "core/faulty_file_system.h"

namespace mhmoe::train {

// A save, from what there is before it; any of `newest` may be the newest checkpoint if it is cut short.
struct Scenario {
  const char* name;
  std::function<void(const std::string&folder)> before, save;
  std::vector<int64_t> newest;
  int64_t saved;  // step
};

inline void damage(const std::string& path) {
  write_bytes(path + "/model-00001-of-00001.safetensors", "damaged");
}

inline std::vector<Scenario> scenarios() {
  const auto write = [](const std::string& folder, int64_t step, int variant = 0) {
    write_checkpoint(folder, make_snapshot(step, variant));
  };
  return {
      {"first save", [](const std::string&) {}, [=](const std::string& f) { write(f, 1); }, {}, 1},
      {"second save, with pruning",
       [=](const std::string& f) {
         write(f, 1);
         write(f, 2);
       },
       [=](const std::string& f) {
         write(f, 3);
         prune_checkpoints(f, 1, 0);
       },
       {2, 3},
       3},
      {"the same step again",
       [=](const std::string& f) {
         write(f, 1);
         write(f, 2);
       },
       [=](const std::string& f) { write(f, 2); },
       {2},
       2},
      {"a damaged one replaced",
       [=](const std::string& f) {
         write(f, 1);
         write(f, 2);
         damage(checkpoint_path(f, 2));
       },
       [=](const std::string& f) { write(f, 2); },
       {1, 2},
       2},
      {"another one replaced",
       [=](const std::string& f) {
         write(f, 1);
         write(f, 2, 1);
       },
       [=](const std::string& f) { write(f, 2); },
       {1, 2},
       2},
      {"gone back",
       [=](const std::string& f) {
         write(f, 1);
         write(f, 3);
         write(f, 4);
       },
       [=](const std::string& f) { write(f, 2); },
       {1, 2, 3, 4},
       2},
  };
}

using Calls = std::vector<FaultyFileSystem::Call>;

inline std::vector<std::string> lines_of(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> lines;
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

class CheckpointSweep : public CheckpointTest {
 protected:
  // What is there before the scenario's save, quickly, again and again.
  void restore(const Scenario& scenario) {
    const fs::path original = root_ / scenario.name;
    if (!fs::exists(original)) {
      fs::create_directories(original / "checkpoints");
      scenario.before((original / "checkpoints").string());
    }
    fs::remove_all(folder_);
    fs::copy(original / "checkpoints", folder_, fs::copy_options::recursive);
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(1));
    }
    before_ = fs::file_time_type::clock::now() - std::chrono::minutes(30);
  }

  // Runs the save in a child that ends in place of call k; returns its exit code.
  int killed_at(const Scenario& scenario, size_t k, bool half_way, const FaultyFileSystem::LastWords& last_words) {
    restore(scenario);
    return exit_code_in_child([&] {
      FaultyFileSystem disk;
      half_way ? disk.die_half_way_at(k, last_words) : disk.die_at(k, last_words);
      scenario.save(folder_);
    });
  }

  void lose_what_was_not_synced(const std::vector<std::string>& files, const std::vector<std::string>& renames) {
    for (const auto& entry : fs::recursive_directory_iterator(folder_)) {
      const std::string name = entry.path().filename();
      const bool is_new = entry.last_write_time() > before_;
      if (entry.is_regular_file() && is_new && std::ranges::find(files, name) != files.end()) {
        fs::resize_file(entry.path(), entry.file_size() / 2);
      }
    }
    for (const std::string& name : renames) {
      const std::string was = name.starts_with(".trash-") ? name.substr(7) : name + ".tmp-lost";
      if (name == "latest") {
        fs::remove(folder_ + "/latest");
      } else if (fs::exists(folder_ + "/" + name) && !fs::exists(folder_ + "/" + was)) {
        fs::rename(folder_ + "/" + name, folder_ + "/" + was);
      }
    }
  }

  Calls recorded_calls(const Scenario& scenario) {
    restore(scenario);
    FaultyFileSystem recorder;
    scenario.save(folder_);
    return recorder.calls();
  }

  // The newest checkpoint is one that may be, holds what it should, and the run can go on saving and cleans up.
  void expect_nothing_lost(const Scenario& scenario) {
    const auto newest = newest_checkpoint(folder_);
    if (!newest) {
      EXPECT_TRUE(scenario.newest.empty());
    } else {
      const std::vector<int64_t> allowed = scenario.newest.empty() ? std::vector<int64_t>{1} : scenario.newest;
      EXPECT_NE(std::ranges::find(allowed, newest->step()), allowed.end()) << newest->step();
      const std::vector<double> values = newest->read("model")[0].doubles("final_norm.weight");
      const int variant =
          newest->state().find("run_hash")->text == fmt::format("{:016x}", newest->step() * 1000) ? 0 : 1;
      EXPECT_EQ(values[1], make_snapshot(newest->step(), variant).storage[1][1]);
    }
    const int64_t next = newest ? newest->step() + 1 : 1;
    write_checkpoint(folder_, make_snapshot(next));
    prune_checkpoints(folder_, 1, 0);
    EXPECT_EQ(newest_checkpoint(folder_)->step(), next);
    size_t others = 0;  // but `latest`, the checkpoint, and what was set aside
    for (const auto& entry : fs::directory_iterator(folder_)) {
      const std::string name = entry.path().filename();
      others += name != "latest" && fs::path(path(next)).filename() != name && !name.starts_with("set-aside-") ? 1 : 0;
    }
    EXPECT_EQ(others, 0u) << "not cleaned up";
    EXPECT_EQ(read_bytes(folder_ + "/latest"), fs::path(path(next)).filename().string() + "\n");
  }

 private:
  fs::file_time_type before_;  // what is older was there before the save
};

}  // namespace mhmoe::train
