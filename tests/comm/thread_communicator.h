// A communicator between threads of one process, each a rank with a context of its own in host memory: for tests of
// what ranks exchange. Rows arrive at wait() and not before; until then `out` holds 0xff, and `in` may not change.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "core/parallel_for.h"
#include "device/communicator.h"
#include "device/traffic_counter.h"

namespace mhmoe::test {

using Bytes = std::vector<std::byte>;

// What the ranks share: messages by call, sender and receiver.
class ThreadGroup {
 public:
  // May change a message on its way.
  using Tamper = std::function<void(const std::string& purpose, int sender, int receiver, Bytes& bytes)>;
  explicit ThreadGroup(int size, Tamper tamper = {}) : size(size), tamper_(std::move(tamper)) {}

  void send(uint64_t call, const std::string& purpose, int sender, int receiver, Bytes bytes) {
    if (tamper_) tamper_(purpose, sender, receiver, bytes);
    const std::lock_guard lock(mutex_);
    messages_[{call, sender, receiver}] = {purpose, std::move(bytes)};
    arrived_.notify_all();
  }
  Bytes receive(uint64_t call, const std::string& purpose, int sender, int receiver) {
    std::unique_lock lock(mutex_);
    const auto there = [&] { return failed_ || messages_.contains({call, sender, receiver}); };
    if (!arrived_.wait_for(lock, std::chrono::seconds(30), there) || failed_) {
      fail(ExitCode::kPeerLost, "[{}] nothing came from rank {}", purpose, sender);
    }
    auto node = messages_.extract({call, sender, receiver});
    MHMOE_CHECK(node.mapped().first == purpose, "[{}] rank {} is at {}", purpose, sender, node.mapped().first);
    return std::move(node.mapped().second);
  }
  // Nobody waits any more.
  void give_up() {
    const std::lock_guard lock(mutex_);
    failed_ = true;
    arrived_.notify_all();
  }

  const int size;

 private:
  Tamper tamper_;
  std::mutex mutex_;
  std::condition_variable arrived_;
  std::map<std::tuple<uint64_t, int, int>, std::pair<std::string, Bytes>> messages_;
  bool failed_ = false;
};

// first_rank: of the group, in the job.
class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(ThreadGroup& group, int rank, int first_rank = 0)
      : group_(group), rank_(rank), ranks_(static_cast<size_t>(group.size)), counter_(rank, group.size) {
    std::iota(ranks_.begin(), ranks_.end(), first_rank);
  }
  void check_idle() const {
    MHMOE_CHECK(pending_.empty(), "[{}] was not waited for", pending_.begin()->second.purpose);
  }

  int rank() const override { return rank_; }
  int size() const override { return group_.size; }
  std::span<const int> ranks() const override { return ranks_; }

  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    MHMOE_CHECK(out.dtype == in.dtype && out.count() == in.count() && in.count() % size() == 0 && out.data != in.data,
                "[{}] out is {}, in is {}", purpose, out.describe(), in.describe());
    std::vector<int64_t> begin(ranks_.size()), one(ranks_.size(), 1);
    std::iota(begin.begin(), begin.end(), 0);
    const int64_t share = in.count() / size();
    return all_to_all_rows({out.view({size(), share}), in.view({size(), share}), begin, one, begin, one}, purpose);
  }
  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    counter_.add(rows);
    Pending pending{std::string(purpose), {}, {}};
    for (size_t p = 0; p < ranks_.size(); ++p) {
      const Tensor sent = rows.in.slice_rows(rows.send_begin[p], rows.send_rows[p]);
      const Tensor received = rows.out.slice_rows(rows.receive_begin[p], rows.receive_rows[p]);
      group_.send(next_, pending.purpose, rank_, static_cast<int>(p), copy_of(sent));
      pending.sent.emplace_back(sent, copy_of(sent));
      pending.received.push_back(received);
      std::memset(received.data, 0xff, received.bytes());
    }
    pending_[next_] = std::move(pending);
    MHMOE_CHECK(pending_.size() <= 64, "[{}] {} transfers were not waited for", purpose, pending_.size());
    return {next_++};
  }
  void wait(Transfer transfer) override {
    auto node = pending_.extract(transfer.number);
    MHMOE_CHECK(!node.empty(), "transfer {} is waited for twice", transfer.number);
    const auto& [purpose, sent, received] = node.mapped();
    for (const auto& [tensor, bytes] : sent) {
      MHMOE_CHECK(copy_of(tensor) == bytes, "[{}] rows changed while they travelled", purpose);
    }
    for (size_t p = 0; p < ranks_.size(); ++p) {
      const Bytes bytes = group_.receive(transfer.number, purpose, static_cast<int>(p), rank_);
      MHMOE_CHECK(bytes.size() == received[p].bytes(), "[{}] rank {} sent {} bytes, expected {}", purpose, p,
                  bytes.size(), received[p].bytes());
      std::memcpy(received[p].data, bytes.data(), bytes.size());
    }
  }

  Transfer all_reduce_sum(const Tensor&, std::string_view purpose) override { return refuse(purpose); }
  Transfer reduce_scatter_sum(const Tensor&, const Tensor&, std::string_view purpose) override {
    return refuse(purpose);
  }
  Transfer all_gather(const Tensor&, const Tensor&, std::string_view purpose) override { return refuse(purpose); }
  Traffic traffic(Kind kind) const override { return counter_.of(kind); }

 private:
  struct Pending {
    std::string purpose;
    std::vector<std::pair<Tensor, Bytes>> sent;
    std::vector<Tensor> received;
  };
  static Bytes copy_of(const Tensor& tensor) {
    const auto* data = static_cast<const std::byte*>(tensor.data);
    return {data, data + tensor.bytes()};
  }
  static Transfer refuse(std::string_view purpose) { fail(ExitCode::kInternal, "[{}] not between threads", purpose); }

  ThreadGroup& group_;
  int rank_;
  std::vector<int> ranks_;
  TrafficCounter counter_;
  uint64_t next_ = 0;
  std::map<uint64_t, Pending> pending_;
};

// body(rank) on a thread for each rank, with one OpenMP thread; the first exception is thrown when all have ended.
template <class Body>
void run_ranks(ThreadGroup& group, Body&& body) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(group.size));
  std::mutex mutex;
  std::exception_ptr first;
  for (int rank = 0; rank < group.size; ++rank) {
    threads.emplace_back([&, rank] {
      set_thread_count(1);
      try {
        body(rank);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
        group.give_up();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace mhmoe::test
