// A small job for the tests of faults: ranks that exchange and add in steps, until rank 2 does what the first argument
// says, in step 5. The second argument is the watchdog's timeout; others only
// tell whose process it is.
#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string_view>
#include <thread>
#include <vector>

#include "comm/faulty_communicator.h"
#include "comm/job.h"

namespace mhmoe {
namespace {

constexpr int kSteps = 12, kFaultyStep = 5, kFaultyRank = 2;

struct Driver {
  std::string_view fault;
  Job& job;
  std::unique_ptr<Communicator> world;
  std::vector<float> out, in;

  bool is_faulty(int step) const { return step == kFaultyStep && job.rank() == kFaultyRank; }

  void exchange(int64_t elements, std::string_view purpose = "layers.3.moe dispatch") {
    world->wait(
        world->all_to_all({out.data(), DType::kF32, {elements}}, {in.data(), DType::kF32, {elements}}, purpose));
  }
  void reduce() { world->wait(world->all_reduce_sum({in.data(), DType::kF32, {64}}, "gradients")); }

  void before_exchange(int step) {
    if (fault == "slow" && step >= kFaultyStep && job.rank() == kFaultyRank && step < kFaultyStep + 4) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1300));
    }
    if (!is_faulty(step)) return;
    if (fault == "kill") std::raise(SIGKILL);
    if (fault == "stop") std::raise(SIGSTOP);
    if (fault == "throw") fail(ExitCode::kNumeric, "the loss is not finite");
    if (fault == "throw_other") static_cast<void>(std::vector<int>().at(1));
    if (fault == "hang") ::pause();
    if (fault == "exit") std::_Exit(3);
    if (fault == "device") {
      job.monitor().enter_device_wait();
      ::pause();
    }
  }

  // While the others wait where no watchdog looks.
  void hang_alone() const {
    if (job.rank() == kFaultyRank) {
      // The watchdog's calls may hang too.
      job.monitor().on_timeout(
          fault == "hang_at_end" ? [](void*) { static_cast<void>(::pause()); }
                                 : [](void*) { fmt::print(stderr, "given up\n"); },
          nullptr);
      job.monitor().enter_device_wait();
    }
    ::pause();
  }

  void run() {
    for (int step = 1; step <= kSteps; ++step) {
      job.monitor().set_step(step);
      before_exchange(step);
      if (fault == "leave" && is_faulty(step)) return;
      if (step == kFaultyStep && (fault == "device_alone" || fault == "hang_at_end")) hang_alone();
      if (fault == "size" && is_faulty(step)) {
        exchange(32);
      } else if (fault == "purpose" && is_faulty(step)) {
        exchange(64, "layers.5.moe dispatch");
      } else if (fault != "skip" || !is_faulty(step)) {
        exchange(64);
      }
      if (fault == "stop_inside" && is_faulty(step)) {
        const Transfer started = world->all_reduce_sum({in.data(), DType::kF32, {64}}, "gradients");
        std::raise(SIGSTOP);
        world->wait(started);
        continue;
      }
      reduce();
    }
    job.monitor().set_step(0);
  }
};

void check(std::string_view fault, const Job& job) {
  if (fault == "agreed") fail(ExitCode::kConfig, "train.steps: 0 is not allowed");
  if (fault == "agreed_one" && job.rank() == kFaultyRank) fail(ExitCode::kMissingInput, "no file x");
}

// Of the communicator: in the exchange of step 5.
test::Fault fault_of(std::string_view fault, const Job& job) {
  using Kind = test::Fault::Kind;
  if (job.rank() != kFaultyRank) return {};
  const int64_t call = 2 * (kFaultyStep - 1) + 1;
  if (fault == "drop") return {.kind = Kind::kDrop, .call = call};
  if (fault == "die") return {.kind = Kind::kDie, .call = call + 1};
  return {};
}

void run(std::string_view fault, double timeout) {
  Job& job = comm::job();
  comm::configure_job({.timeout_seconds = timeout});
  if (const char* folder = std::getenv("RUN_FOLDER")) job.monitor().set_folder(folder);
  comm::agree_after(job, [&] { check(fault, job); });
  if (fault == "requeue") fail(ExitCode::kRequeue, "stopped by SIGTERM, saved");
  if (fault == "place") fmt::print("rank {} of {}\n", job.rank(), job.size());
  if (job.size() == 1) return;
  std::vector<int> all(static_cast<size_t>(job.size()));
  std::iota(all.begin(), all.end(), 0);
  auto world = std::make_unique<test::FaultyCommunicator>(job.create_host_communicator(all), fault_of(fault, job));
  Driver driver{fault, job, std::move(world), std::vector<float>(64), std::vector<float>(64)};
  driver.run();
}

}  // namespace
}  // namespace mhmoe

int main(int argc, char** argv) {
  try {
    mhmoe::run(argc > 1 ? argv[1] : "none", argc > 2 ? std::atof(argv[2]) : 600);
    mhmoe::comm::finish_job();
    return 0;
  } catch (...) {
    return static_cast<int>(mhmoe::comm::end_by_exception());
  }
}
