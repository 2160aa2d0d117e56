#include "device/sizing_communicator.h"

#include <algorithm>

#include "device/traffic_counter.h"

namespace mhmoe {
namespace {

class SizingCommunicator final : public Communicator {
 public:
  SizingCommunicator(int rank, std::vector<int> ranks)
      : ranks_(std::move(ranks)),
        rank_(static_cast<int>(std::ranges::find(ranks_, rank) - ranks_.begin())),
        counter_(rank_, size()) {}

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }
  std::span<const int> ranks() const override { return ranks_; }

  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    check(values.dtype == DType::kF32, values, values, purpose);
    counter_.add(Kind::kAllReduce, values.bytes());
    return {};
  }
  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check(in.dtype == DType::kF32 && in.count() == size() * out.count(), out, in, purpose);
    counter_.add(Kind::kReduceScatter, in.bytes());
    return {};
  }
  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check(out.count() == size() * in.count(), out, in, purpose);
    counter_.add(Kind::kAllGather, out.bytes());
    return {};
  }
  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check(out.count() == in.count() && in.count() % size() == 0, out, in, purpose);
    counter_.add(Kind::kAllToAll, in.bytes());
    return {};
  }
  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    check(rows.out.cols() == rows.in.cols(), rows.out, rows.in, purpose);
    counter_.add(rows);
    return {};
  }
  void wait(Transfer /*transfer*/) override {}
  Traffic traffic(Kind kind) const override { return counter_.of(kind); }

 private:
  static void check(bool fits, const Tensor& out, const Tensor& in, std::string_view purpose) {
    MHMOE_CHECK(fits && out.dtype == in.dtype, "[{}] out {} and in {} do not fit together", purpose, out.describe(),
                in.describe());
  }

  std::vector<int> ranks_;
  int rank_;
  TrafficCounter counter_;
};

}  // namespace

std::unique_ptr<Communicator> make_sizing_communicator(int rank, std::vector<int> ranks) {
  return std::make_unique<SizingCommunicator>(rank, std::move(ranks));
}

}  // namespace mhmoe
