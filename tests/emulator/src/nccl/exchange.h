// What an NCCL call does between ranks: every rank tells every other what it was asked for, and messages of MPI.
#pragma once

#include <mpi.h>
#include <nccl.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace emulator {

// A communicator outlives its handle until the last call queued on it has run.
struct Clique {
  MPI_Comm mpi = MPI_COMM_NULL;  // null where a rank is alone, which needs no MPI
  int rank = 0, size = 1;
  int64_t calls = 0;  // queued so far
  std::atomic<bool> aborted = false;
  std::atomic<ncclResult_t> error = ncclSuccess;
};

enum class Kind : int64_t {
  kAllReduce,
  kReduce,
  kBroadcast,
  kAllGather,
  kReduceScatter,
  kAllToAll,
  kGather,
  kScatter,
  kSend,
  kReceive,
};

// What the ranks of a call must agree on.
struct Request {
  Kind kind;
  int64_t number;  // of the communicator's calls; -1 for a message between two, which are counted by the pair
  int64_t count;
  int64_t type;
  int64_t detail;  // the reduction's operation, or the root

  std::string describe() const;
  bool operator==(const Request&) const = default;
};

struct Message {
  int peer;
  std::byte* data;  // sends only read it
  size_t bytes;
};

// One NCCL call on this rank. It may run more than once, as part of a graph.
struct Call {
  std::shared_ptr<Clique> clique;
  Request request;
  std::vector<int> others;  // who take part besides this rank
  std::vector<Message> sends = {}, receives = {};
  std::vector<std::unique_ptr<std::byte[]>> parts = {};  // what receives may point to: a call is moved, not copied
  std::function<void(const Call&)> finish = {};          // when all messages are in
};

// The calls of a group, which run at one time.
class Exchange {
 public:
  explicit Exchange(std::vector<Call> calls);
  ~Exchange();

  // Goes on until all messages are in, so that it may begin anew; throws Unfinished when that takes long. Throws Fault
  // when ranks were asked for different things, or when one does not come within EMULATOR_NCCL_SECONDS (60), which
  // EMULATOR_NCCL_LATE=error makes an error of the communicator instead. Returns with nothing done when the
  // communicator is aborted.
  void advance();

 private:
  class Flight;

  void start();
  void abandon();
  [[noreturn]] void give_up();

  std::vector<Call> calls_;
  std::vector<Flight> flights_;  // none: not started
  std::chrono::steady_clock::time_point deadline_;
};

}  // namespace emulator
