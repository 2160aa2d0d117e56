// A communicator with faults: for tests of what notices them.
#pragma once

#include <chrono>
#include <csignal>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "device/communicator.h"

namespace mhmoe::test {

struct Fault {
  enum class Kind : uint8_t { kNone, kDrop, kDelay, kFlipBit, kDie };

  Kind kind = Kind::kNone;
  int64_t call = 1;    // which of the communicator's, from 1, where there is one fault
  double seconds = 0;  // kDelay
  int64_t bit = 0;     // kFlipBit: of what arrived, modulo its size; in host memory
};

class FaultyCommunicator final : public Communicator {
 public:
  // The fault of a call, by its name: "all_to_all (layers.3.moe dispatch)".
  using Choose = std::function<Fault(const std::string& call)>;

  FaultyCommunicator(std::unique_ptr<Communicator> inner, Choose choose)
      : inner_(std::move(inner)), choose_(std::move(choose)) {}
  FaultyCommunicator(std::unique_ptr<Communicator> inner, Fault fault)
      : FaultyCommunicator(std::move(inner),
                           [this, fault](const std::string&) { return calls_ == fault.call ? fault : Fault{}; }) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::span<const int> ranks() const override { return inner_->ranks(); }
  int64_t calls() const { return calls_; }

  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    return call("all_reduce_sum", purpose, values, [&] { return inner_->all_reduce_sum(values, purpose); });
  }
  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return call("reduce_scatter_sum", purpose, out, [&] { return inner_->reduce_scatter_sum(out, in, purpose); });
  }
  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return call("all_gather", purpose, out, [&] { return inner_->all_gather(out, in, purpose); });
  }
  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return call("all_to_all", purpose, out, [&] { return inner_->all_to_all(out, in, purpose); });
  }
  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    return call("all_to_all_rows", purpose, arriving(rows), [&] { return inner_->all_to_all_rows(rows, purpose); });
  }

  void wait(Transfer transfer) override {
    inner_->wait(transfer);
    const auto damaged = to_damage_.find(transfer.number);
    if (damaged == to_damage_.end()) return;
    flip(damaged->second.first, damaged->second.second);
    to_damage_.erase(damaged);
  }
  Traffic traffic(Kind kind) const override { return inner_->traffic(kind); }

 private:
  // The first rows that come from one rank.
  static Tensor arriving(const RowExchange& rows) {
    for (size_t p = 0; p < rows.receive_rows.size(); ++p) {
      if (rows.receive_rows[p] > 0) return rows.out.slice_rows(rows.receive_begin[p], rows.receive_rows[p]);
    }
    return rows.out.slice_rows(0, 0);
  }

  template <class Start>
  Transfer call(const char* kind, std::string_view purpose, const Tensor& out, Start&& start) {
    ++calls_;
    const Fault fault = choose_(std::string(kind) + " (" + std::string(purpose) + ")");
    if (fault.kind == Fault::Kind::kDrop) return {};
    if (fault.kind == Fault::Kind::kDie) std::raise(SIGKILL);
    if (fault.kind == Fault::Kind::kDelay) {
      std::this_thread::sleep_for(std::chrono::duration<double>(fault.seconds));
    }
    const Transfer transfer = start();
    if (fault.kind == Fault::Kind::kFlipBit) to_damage_.emplace(transfer.number, std::pair(out, fault.bit));
    return transfer;
  }
  static void flip(const Tensor& out, int64_t number) {
    if (out.count() == 0) return;
    const int64_t bit = number % (static_cast<int64_t>(out.bytes()) * 8);
    static_cast<uint8_t*>(out.data)[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }

  std::unique_ptr<Communicator> inner_;
  Choose choose_;
  int64_t calls_ = 0;
  std::map<uint64_t, std::pair<Tensor, int64_t>> to_damage_;  // a bit of each
};

}  // namespace mhmoe::test
