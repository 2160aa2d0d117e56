// The program's job, whose calls are events.
#pragma once

#include "cli/faults/events.h"
#include "device/job.h"

namespace mhmoe::test {

class WatchedMonitor final : public Monitor {
 public:
  explicit WatchedMonitor(Monitor& inner) : inner_(inner) {}

  void set_step(int64_t step) override {
    Events::of_this_process().set_step(step);
    inner_.set_step(step);
  }
  void enter(std::span<const int> group, std::string_view kind, int64_t bytes, std::string_view purpose) override {
    inner_.enter(group, kind, bytes, purpose);
  }
  void leave() override { inner_.leave(); }
  void enter_device_wait() override { inner_.enter_device_wait(); }
  void on_timeout(void (*give_up)(void*), void* argument) override { inner_.on_timeout(give_up, argument); }
  void set_folder(const std::string& folder) override { inner_.set_folder(folder); }

 private:
  Monitor& inner_;
};

class WatchedJob final : public Job {
 public:
  explicit WatchedJob(Job& inner) : inner_(inner), monitor_(inner.monitor()) {}

  int rank() const override { return inner_.rank(); }
  int size() const override { return inner_.size(); }
  int local_rank() const override { return inner_.local_rank(); }
  int ranks_per_node() const override { return inner_.ranks_per_node(); }
  int node() const override { return inner_.node(); }
  int nodes() const override { return inner_.nodes(); }

  void broadcast(void* data, size_t bytes, int root) override {
    reach("broadcast");
    inner_.broadcast(data, bytes, root);
  }
  std::vector<std::string> gather(const std::string& mine) override {
    reach("gather");
    return inner_.gather(mine);
  }
  void sum(std::span<int64_t> values) override {
    reach("sum");
    inner_.sum(values);
  }
  void maximum(std::span<int64_t> values) override {
    reach("maximum");
    inner_.maximum(values);
  }
  void send(const void* data, size_t bytes, int to) override {
    reach("send");
    inner_.send(data, bytes, to);
  }
  void receive(void* data, size_t bytes, int from) override {
    reach("receive");
    inner_.receive(data, bytes, from);
  }
  std::unique_ptr<Communicator> create_host_communicator(std::span<const int> ranks) override {
    reach("create_host_communicator");
    return inner_.create_host_communicator(ranks);
  }
  Monitor& monitor() override { return monitor_; }
  void abort(ExitCode code) override { inner_.abort(code); }

 private:
  static void reach(const char* call) { Events::of_this_process().reach(std::string("job ") + call); }

  Job& inner_;
  WatchedMonitor monitor_;
};

}  // namespace mhmoe::test
