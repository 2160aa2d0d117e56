#include "nccl/exchange.h"

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "emulator/fault.h"
#include "nccl/join.h"
#include "nccl/reduction.h"
#include "pending.h"

namespace emulator {
namespace {

using Clock = std::chrono::steady_clock;

// Messages between two ranks arrive in order within a tag, and a communicator's calls run one after another.
constexpr int kRequestTag = 1, kDataTag = 2, kFromSenderTag = 3, kFromReceiverTag = 4, kPairDataTag = 5;

bool between_two(const Call& call) {
  return call.request.kind == Kind::kSend || call.request.kind == Kind::kReceive;
}

// How long a call keeps the process from other work.
constexpr std::chrono::milliseconds kSlice(1);

bool lateness_is_an_error() {
  const char* late = std::getenv("EMULATOR_NCCL_LATE");
  return late != nullptr && std::strcmp(late, "error") == 0;
}

int bytes_for_mpi(size_t bytes) {
  if (bytes > std::numeric_limits<int>::max()) throw Fault("NCCL: a message of " + std::to_string(bytes) + " bytes");
  return static_cast<int>(bytes);
}

}  // namespace

// Everything in flight of one call.
class Exchange::Flight {
 public:
  explicit Flight(Call& call) : call_(call), requests_(call.others.size()) {}

  // Sends and receives at once, so that calls that run at one time on several streams cannot wait for each other's.
  void start() {
    copy_own_part();
    const bool sends = call_.request.kind == Kind::kSend;
    const int own_tag = !between_two(call_) ? kRequestTag : sends ? kFromSenderTag : kFromReceiverTag;
    const int other_tag = !between_two(call_) ? kRequestTag : sends ? kFromReceiverTag : kFromSenderTag;
    for (size_t i = 0; i < call_.others.size(); ++i) {
      start_receive(call_.others[i], &requests_[i], sizeof(Request), other_tag);
    }
    for (const int other : call_.others) start_send(other, &call_.request, sizeof(Request), own_tag);
    const int data_tag = between_two(call_) ? kPairDataTag : kDataTag;
    for (const Message& message : call_.receives) {
      if (message.peer != rank()) start_receive(message.peer, message.data, message.bytes, data_tag);
    }
    for (const Message& message : call_.sends) {
      if (message.peer != rank()) start_send(message.peer, message.data, message.bytes, data_tag);
    }
  }

  // Whether everything has arrived; the others' requests are compared as soon as they are in.
  bool arrived() {
    int all = 1;
    for (size_t i = 0; i < pending_.size(); ++i) {
      int done = 0;
      MPI_Test(&pending_[i], &done, MPI_STATUS_IGNORE);
      all &= done;
      if (done != 0 && i < requests_.size()) compare(i);
    }
    return all != 0;
  }

  // Messages that will not arrive any more must not arrive in memory that somebody else has then.
  void abandon() {
    for (size_t i = 0; i < pending_.size(); ++i) {
      if (pending_[i] == MPI_REQUEST_NULL) continue;
      if (is_receive_[i]) MPI_Cancel(&pending_[i]);
      MPI_Request_free(&pending_[i]);
    }
  }

  // "ranks 1, 3"
  std::string missing() const {
    std::string names;
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (pending_[i] != MPI_REQUEST_NULL) names += (names.empty() ? "" : ", ") + std::to_string(call_.others[i]);
    }
    return names.empty() ? "the data of another rank" : "rank " + names;
  }

  Call& call() { return call_; }
  bool aborted() const { return call_.clique->aborted; }

 private:
  int rank() const { return call_.clique->rank; }

  void copy_own_part() {
    auto receive = call_.receives.begin();
    for (const Message& send : call_.sends) {
      if (send.peer != rank()) continue;
      while (receive != call_.receives.end() && receive->peer != rank()) ++receive;
      if (receive == call_.receives.end()) return;
      if (send.bytes > 0) std::memmove(receive->data, send.data, send.bytes);
      ++receive;
    }
  }

  void start_send(int to, const void* data, size_t bytes, int tag) {
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(data, bytes_for_mpi(bytes), MPI_BYTE, to, tag, call_.clique->mpi, &request);
    pending_.push_back(request), is_receive_.push_back(false);
  }
  void start_receive(int from, void* data, size_t bytes, int tag) {
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Irecv(data, bytes_for_mpi(bytes), MPI_BYTE, from, tag, call_.clique->mpi, &request);
    pending_.push_back(request), is_receive_.push_back(true);
  }

  void compare(size_t i) const {
    Request expected = call_.request;
    if (between_two(call_)) expected.kind = expected.kind == Kind::kSend ? Kind::kReceive : Kind::kSend;
    if (requests_[i] == expected) return;
    throw Fault("NCCL: rank " + std::to_string(rank()) + " is at " + call_.request.describe() + ", rank " +
                std::to_string(call_.others[i]) + " at " + requests_[i].describe());
  }

  Call& call_;
  std::vector<Request> requests_;  // of the others, whose receives are the first of pending_
  std::vector<MPI_Request> pending_;
  std::vector<bool> is_receive_;
};

namespace {

// What ranks send to themselves in this group; both ends must be in it.
void copy_to_self(std::vector<Call>& calls) {
  const auto to_self = [](const Call& call, Kind kind) { return call.request.kind == kind && call.others.empty(); };
  auto send = calls.begin();
  size_t sent = 0, received = 0;
  for (const Call& call : calls) sent += to_self(call, Kind::kSend) ? 1 : 0;
  for (const Call& call : calls) {
    if (!to_self(call, Kind::kReceive)) continue;
    send = std::find_if(send, calls.end(), [&](const Call& other) { return to_self(other, Kind::kSend); });
    if (send == calls.end() || send->clique != call.clique || send->sends[0].bytes != call.receives[0].bytes) break;
    const Message& own = call.receives[0];
    if (own.bytes > 0) std::memmove(own.data, send->sends[0].data, own.bytes);
    ++send, ++received;
  }
  if (sent != received) throw Fault("NCCL: a rank's message to itself has one end in a group");
}

}  // namespace

std::string Request::describe() const {
  constexpr const char* kNames[] = {"all_reduce", "reduce", "broadcast", "all_gather", "reduce_scatter",
                                    "all_to_all", "gather", "scatter",   "send",       "receive"};
  std::string text = kNames[static_cast<size_t>(kind)];
  text += " of " + std::to_string(count) + " " + name_of(static_cast<ncclDataType_t>(type));
  const bool reduces = kind == Kind::kAllReduce || kind == Kind::kReduceScatter;
  if (reduces) text += std::string(" by ") + name_of(static_cast<ncclRedOp_t>(detail));
  if (number >= 0) text += " (call " + std::to_string(number) + " of the communicator)";
  return text;
}

Exchange::Exchange(std::vector<Call> calls) : calls_(std::move(calls)) {}

Exchange::~Exchange() {
  abandon();
}

void Exchange::abandon() {
  for (Flight& flight : flights_) flight.abandon();
  flights_.clear();
}

void Exchange::start() {
  copy_to_self(calls_);
  deadline_ = Clock::now() + patience();
  flights_.reserve(calls_.size());
  for (Call& call : calls_) flights_.emplace_back(call).start();
}

void Exchange::give_up() {
  for (Flight& flight : flights_) {
    if (flight.arrived()) continue;
    flight.call().clique->error = ncclRemoteError;
    if (lateness_is_an_error()) continue;
    throw Fault("NCCL: rank " + std::to_string(flight.call().clique->rank) + " waits at " +
                flight.call().request.describe() + " for " + flight.missing());
  }
  throw Unfinished{.lost = true};
}

void Exchange::advance() {
  const Clock::time_point pause = Clock::now() + kSlice;
  try {
    if (flights_.empty()) start();
    for (;;) {
      bool all = true;
      for (Flight& flight : flights_) {
        if (flight.aborted()) return abandon();
        all = flight.arrived() && all;
      }
      if (all) break;
      const Clock::time_point now = Clock::now();
      if (now > deadline_) give_up();
      if (now > pause) throw Unfinished{.lost = false};
      sched_yield();
    }
  } catch (const Unfinished&) {
    throw;
  } catch (...) {
    abandon();
    throw;
  }
  flights_.clear();
  for (Call& call : calls_) {
    if (call.finish) call.finish(call);
  }
}

}  // namespace emulator
