// A job over MPI that has just what communicators ask for, and a monitor that the test itself is the watchdog of.
#pragma once

#include <mpi.h>

#include <atomic>
#include <string>
#include <vector>

#include "device/job.h"

namespace mhmoe::test {

class ScriptedMonitor final : public Monitor {
 public:
  void set_step(int64_t /*step*/) override {}
  void enter(std::span<const int> /*group*/, std::string_view kind, int64_t bytes, std::string_view purpose) override {
    entered.push_back(fmt::format("{} {} {}", kind, bytes, purpose));
    ++depth;
  }
  void leave() override { --depth; }
  void enter_device_wait() override {
    ++device_waits;
    ++depth;
  }
  void on_timeout(void (*give_up)(void*), void* argument) override {
    give_up_ = give_up;
    argument_ = argument;
  }
  void set_folder(const std::string& /*folder*/) override {}

  bool registered() const { return give_up_ != nullptr; }
  void time_out() { give_up_.load()(argument_); }

  std::vector<std::string> entered;
  int device_waits = 0, depth = 0;

 private:
  std::atomic<void (*)(void*)> give_up_ = nullptr;
  std::atomic<void*> argument_ = nullptr;
};

class MpiJob final : public Job {
 public:
  int rank() const override { return value_of(MPI_Comm_rank); }
  int size() const override { return value_of(MPI_Comm_size); }
  int local_rank() const override { return rank(); }
  int ranks_per_node() const override { return size(); }
  int node() const override { return 0; }
  int nodes() const override { return 1; }

  void broadcast(void* data, size_t bytes, int root) override {
    MPI_Bcast(data, static_cast<int>(bytes), MPI_BYTE, root, MPI_COMM_WORLD);
  }
  std::vector<std::string> gather(const std::string& mine) override {
    std::vector<std::string> all(static_cast<size_t>(size()));
    for (int root = 0; root < size(); ++root) {
      std::string& text = all[static_cast<size_t>(root)];
      if (root == rank()) text = mine;
      uint64_t length = text.size();
      broadcast(&length, sizeof(length), root);
      text.resize(length);
      broadcast(text.data(), length, root);
    }
    return all;
  }
  void sum(std::span<int64_t> values) override { reduce(values, MPI_SUM); }
  void maximum(std::span<int64_t> values) override { reduce(values, MPI_MAX); }
  void send(const void* /*data*/, size_t /*bytes*/, int /*to*/) override { refuse(); }
  void receive(void* /*data*/, size_t /*bytes*/, int /*from*/) override { refuse(); }
  std::unique_ptr<Communicator> create_host_communicator(std::span<const int> /*ranks*/) override { refuse(); }

  ScriptedMonitor& monitor() override { return monitor_; }
  void abort(ExitCode /*code*/) override { refuse(); }

 private:
  static int value_of(int (*call)(MPI_Comm, int*)) {
    int value = 0;
    call(MPI_COMM_WORLD, &value);
    return value;
  }
  static void reduce(std::span<int64_t> values, MPI_Op operation) {
    MPI_Allreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), MPI_INT64_T, operation, MPI_COMM_WORLD);
  }
  [[noreturn]] static void refuse() { fail(ExitCode::kInternal, "not for this test"); }

  ScriptedMonitor monitor_;
};

}  // namespace mhmoe::test
