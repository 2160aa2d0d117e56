#include <cstring>

#include "device/job.h"

namespace mhmoe {
namespace {

class IdleMonitor final : public Monitor {
 public:
  void set_step(int64_t /*step*/) override {}
  void enter(std::span<const int> /*group*/, std::string_view /*kind*/, int64_t /*bytes*/,
             std::string_view /*purpose*/) override {}
  void leave() override {}
  void enter_device_wait() override {}
  void on_timeout(void (* /*give_up*/)(void*), void* /*argument*/) override {}
  void set_folder(const std::string& /*folder*/) override {}
};

class SingleJob final : public Job {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  int local_rank() const override { return 0; }
  int ranks_per_node() const override { return 1; }
  int node() const override { return 0; }
  int nodes() const override { return 1; }

  void broadcast(void* /*data*/, size_t /*bytes*/, int /*root*/) override {}
  std::vector<std::string> gather(const std::string& mine) override { return {mine}; }
  void sum(std::span<int64_t> /*values*/) override {}
  void maximum(std::span<int64_t> /*values*/) override {}
  void send(const void* /*data*/, size_t /*bytes*/, int to) override { fail_peer(to); }
  void receive(void* /*data*/, size_t /*bytes*/, int from) override { fail_peer(from); }
  std::unique_ptr<Communicator> create_host_communicator(std::span<const int> ranks) override { fail_peer(ranks[0]); }

  Monitor& monitor() override { return monitor_; }
  void abort(ExitCode /*code*/) override {}

 private:
  [[noreturn]] static void fail_peer(int rank) {
    fail(ExitCode::kInternal, "a message to rank {} from a process that was started alone", rank);
  }

  IdleMonitor monitor_;
};

}  // namespace

Monitor::~Monitor() = default;
Job::~Job() = default;

Job& single_job() {
  static SingleJob job;
  return job;
}

}  // namespace mhmoe
