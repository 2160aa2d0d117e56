// Starts the program with a fault as several ranks, and looks at how the whole job ends.
#pragma once

#include <atomic>
#include <chrono>
#include <sstream>
#include <thread>

#include "cli/emulated_program.h"

namespace mhmoe::cli {

struct Event {
  int64_t number = 0;  // of its rank's, from 1
  int64_t step = 0;    // of training; 0 before the first
  std::string what;

  bool is(const std::string& part) const { return what.find(part) != std::string::npos; }
  bool is_collective() const { return is("collective "); }
};

// How a job with a fault ended.
struct End {
  Outcome outcome;
  double seconds = 0;               // from the fault on, those alone in which this process was awake
  std::vector<std::string> errors;  // lines "error: ..."
};

class RankFaultsProgram : public RanksProgram {
 protected:
  static constexpr int kRanks = 4;
  // Of an end that no watchdog waits for, on a busy machine too.
  static constexpr double kSoon = 5;

  // Three steps; in the second there are validation and a checkpoint.
  static std::string settings(const std::string& device, const std::string& more) {
    return fmt::format(
        "train tiny.json --threads 1 --device {} --set train.steps=3 --set evaluation.every_steps=2 --set "
        "evaluation.tokens=60 --set checkpoint.every_steps=2 --set checkpoint.asynchronous=false {} --set "
        "parallel.expert_parallel_size=2 --set model.moe.capacity_factor=1 {}",
        device, kEightExperts, more);
  }

  Outcome run_faulty(const std::string& environment, const std::string& arguments, int ranks = kRanks) const {
    std::filesystem::remove_all(folder_ / "runs");
    const auto driver = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "faulty_mhmoe";
    return run_shell(fmt::format("export OMP_NUM_THREADS=1 {}; exec timeout 100 {} -np {} {} {}", environment, mpirun(),
                                 ranks, driver.string(), arguments));
  }

  // All that a rank does where nothing is wrong.
  std::vector<Event> events(int rank, const std::string& arguments, int ranks = kRanks) const {
    const Outcome outcome = run_faulty(fmt::format("FAULT_RANK={} EVENTS=events.txt", rank), arguments, ranks);
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::vector<Event> all;
    for (const std::string& line : lines_of(read_text(folder_ / "events.txt"))) {
      Event event;
      event.number = static_cast<int64_t>(all.size()) + 1;
      std::istringstream text(line);
      text >> event.step;
      std::getline(text >> std::ws, event.what);
      all.push_back(event);
    }
    return all;
  }

  // fault: of events.h.
  End end_by(const std::string& fault, int rank, const Event& event, const std::string& arguments, int ranks = kRanks,
             const std::string& environment = "") const {
    End end;
    std::filesystem::remove(folder_ / "faulted");
    std::atomic<bool> running{true};
    std::thread clock([&] {
      constexpr std::chrono::milliseconds kTick(20);
      while (running) {
        std::this_thread::sleep_for(kTick);
        if (std::filesystem::exists(folder_ / "faulted")) end.seconds += std::chrono::duration<double>(kTick).count();
      }
    });
    end.outcome = run_faulty(fmt::format("FAULT_RANK={} FAULT='{} {}' {}", rank, fault, event.number, environment),
                             arguments, ranks);
    running = false;
    clock.join();
    EXPECT_GT(end.seconds, 0) << "the fault did not happen: " << end.outcome.err;
    for (const std::string& line : lines_of(end.outcome.err)) {
      if (line.starts_with("error: ")) end.errors.push_back(line);
    }
    return end;
  }

  // The first error has all the parts.
  static void expect_end(const End& end, int code, double seconds, const std::vector<std::string>& parts) {
    EXPECT_EQ(end.outcome.code, code) << end.outcome.err;
    EXPECT_LT(end.seconds, seconds) << end.outcome.err;
    ASSERT_FALSE(end.errors.empty()) << end.outcome.err;
    for (const std::string& part : parts) EXPECT_NE(end.errors[0].find(part), std::string::npos) << end.outcome.err;
  }

  // The events of the step that have this in their names.
  static std::vector<Event> of(const std::vector<Event>& events, int64_t step, const std::string& part) {
    std::vector<Event> found;
    for (const Event& event : events) {
      if (event.step == step && event.is(part)) found.push_back(event);
    }
    return found;
  }
};

}  // namespace mhmoe::cli
