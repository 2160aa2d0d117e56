// A communicator with one fault: for tests of what notices it.
#pragma once

#include <chrono>
#include <csignal>
#include <map>
#include <memory>
#include <thread>
#include <utility>

#include "device/communicator.h"

namespace mhmoe::test {

struct Fault {
  enum class Kind : uint8_t { kNone, kDrop, kDelay, kFlipBit, kDie };

  Kind kind = Kind::kNone;
  int64_t call = 1;    // which of the communicator's, from 1
  double seconds = 0;  // kDelay
  int64_t bit = 0;     // kFlipBit: of what arrived, modulo its size; in host memory
};

class FaultyCommunicator final : public Communicator {
 public:
  FaultyCommunicator(std::unique_ptr<Communicator> inner, Fault fault) : inner_(std::move(inner)), fault_(fault) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  std::span<const int> ranks() const override { return inner_->ranks(); }
  int64_t calls() const { return calls_; }

  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    return call(values, [&] { return inner_->all_reduce_sum(values, purpose); });
  }
  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return call(out, [&] { return inner_->reduce_scatter_sum(out, in, purpose); });
  }
  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return call(out, [&] { return inner_->all_gather(out, in, purpose); });
  }
  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return call(out, [&] { return inner_->all_to_all(out, in, purpose); });
  }
  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    return call(rows.out, [&] { return inner_->all_to_all_rows(rows, purpose); });
  }

  void wait(Transfer transfer) override {
    inner_->wait(transfer);
    const auto damaged = to_damage_.find(transfer.number);
    if (damaged == to_damage_.end()) return;
    flip(damaged->second);
    to_damage_.erase(damaged);
  }
  Traffic traffic(Kind kind) const override { return inner_->traffic(kind); }

 private:
  template <class Start>
  Transfer call(const Tensor& out, Start&& start) {
    const bool faulty = ++calls_ == fault_.call;
    if (faulty && fault_.kind == Fault::Kind::kDrop) return {};
    if (faulty && fault_.kind == Fault::Kind::kDie) std::raise(SIGKILL);
    if (faulty && fault_.kind == Fault::Kind::kDelay) {
      std::this_thread::sleep_for(std::chrono::duration<double>(fault_.seconds));
    }
    const Transfer transfer = start();
    if (faulty && fault_.kind == Fault::Kind::kFlipBit) to_damage_.emplace(transfer.number, out);
    return transfer;
  }
  void flip(const Tensor& out) const {
    if (out.count() == 0) return;
    const int64_t bit = fault_.bit % (static_cast<int64_t>(out.bytes()) * 8);
    static_cast<uint8_t*>(out.data)[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
  }

  std::unique_ptr<Communicator> inner_;
  Fault fault_;
  int64_t calls_ = 0;
  std::map<uint64_t, Tensor> to_damage_;
};

}  // namespace mhmoe::test
