#include "comm/hierarchical_communicator.h"

#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace mhmoe::comm {
namespace {

using Counts = std::vector<int64_t>;

Counts begins_of(const Counts& rows) {
  Counts begins(rows.size());
  std::exclusive_scan(rows.begin(), rows.end(), begins.begin(), int64_t{0});
  return begins;
}

int64_t sum_of(std::span<const int64_t> rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

// Whether blocks lie one behind the other.
bool are_packed(std::span<const int64_t> begins, std::span<const int64_t> rows) {
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    if (begins[i] + rows[i] != begins[i + 1]) return false;
  }
  return true;
}

// In loops over a group's ranks: `place` on `node`.
class HierarchicalCommunicator final : public Communicator {
 public:
  HierarchicalCommunicator(Context& ctx, Levels levels)
      : ctx_(ctx), levels_(std::move(levels)), places_(node().size()), nodes_(between().size()) {
    MHMOE_CHECK(places_ * nodes_ == size() && number(between().rank(), node().rank()) == static_cast<size_t>(rank()),
                "rank {} of {} is {} of {} on node {} of {}", rank(), size(), node().rank(), places_, between().rank(),
                nodes_);
  }

  int rank() const override { return levels_.flat->rank(); }
  int size() const override { return levels_.flat->size(); }
  std::span<const int> ranks() const override { return levels_.flat->ranks(); }

  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    return levels_.flat->all_reduce_sum(values, purpose);
  }
  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return levels_.flat->reduce_scatter_sum(out, in, purpose);
  }
  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    return levels_.flat->all_gather(out, in, purpose);
  }

  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    MHMOE_CHECK(out.dtype == in.dtype && out.count() == in.count() && in.count() % size() == 0 &&
                    (out.data != in.data || in.count() == 0),
                "[{}] out is {}, in is {}, for {} ranks", purpose, out.describe(), in.describe(), size());
    const int64_t share = in.count() / size();
    const Counts one(static_cast<size_t>(size()), 1), begins = begins_of(one);
    return exchange({.out = out.view({size(), share}),
                     .in = in.view({size(), share}),
                     .send_begin = begins,
                     .send_rows = one,
                     .receive_begin = begins,
                     .receive_rows = one,
                     .equal = true},
                    purpose);
  }

  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    if (rows.equal || rows.in.device == DeviceKind::kCpu) return exchange(rows, purpose);
    for (int peer = 0; peer < size(); ++peer) {
      if (peer / places_ == between().rank()) continue;
      direct_bytes_ += static_cast<int64_t>(rows.in.slice_rows(0, rows.send_rows[static_cast<size_t>(peer)]).bytes());
    }
    return levels_.flat->all_to_all_rows(rows, purpose);
  }

  void wait(Transfer transfer) override {
    if (transfer.number != kEnded) levels_.flat->wait(transfer);
  }

  Traffic traffic(Kind kind) const override {
    Traffic sum = levels_.flat->traffic(kind);
    if (kind != Kind::kAllToAll) return sum;
    const Traffic inside = levels_.node->traffic(kind), outside = levels_.between->traffic(kind);
    sum.calls += outside.calls;
    sum.bytes += inside.bytes + outside.bytes;
    sum.bytes_between_nodes = direct_bytes_ + outside.bytes;
    sum.waiting_seconds += inside.waiting_seconds + outside.waiting_seconds;
    return sum;
  }

 private:
  static constexpr uint64_t kEnded = std::numeric_limits<uint64_t>::max();

  Communicator& node() const { return *levels_.node; }
  Communicator& between() const { return *levels_.between; }
  size_t number(int node, int place) const {
    return static_cast<size_t>(node) * static_cast<size_t>(places_) + static_cast<size_t>(place);
  }
  // Of what is ordered by place first.
  size_t by_place(int place, int node) const {
    return static_cast<size_t>(place) * static_cast<size_t>(nodes_) + static_cast<size_t>(node);
  }

  Transfer exchange(const RowExchange& rows, std::string_view purpose) {
    MHMOE_CHECK(rows.out.dtype == rows.in.dtype && rows.out.cols() == rows.in.cols(), "[{}] out is {}, in is {}",
                purpose, rows.out.describe(), rows.in.describe());
    const Counts passing = passing_rows(rows, purpose);
    const CommunicationScope scope(ctx_);
    between_nodes(rows, passing, within_node(rows, passing, purpose), purpose);
    return {kEnded};
  }

  // How many rows this rank gets from each place of its node to send on to each node, by_place(). A sizing pass, which
  // learns nothing from others, takes as many as this rank itself sends to ranks of that place.
  Counts passing_rows(const RowExchange& rows, std::string_view purpose) {
    Counts mine, passing(static_cast<size_t>(size()));
    for (int place = 0; place < places_; ++place) {
      for (int node = 0; node < nodes_; ++node) mine.push_back(rows.send_rows[number(node, place)]);
    }
    if (rows.equal) return mine;
    const auto on_host = [&](Counts& counts) { return Tensor(counts.data(), DType::kI64, {size()}); };
    node().wait(node().all_to_all(on_host(passing), on_host(mine), std::string(purpose) + ", rows to pass on"));
    return ctx_.sizing() ? mine : passing;
  }

  // The first step. Returns what was received, ordered by place and there by the node it goes to.
  Tensor within_node(const RowExchange& rows, const Counts& passing, std::string_view purpose) {
    const Tensor received = allocate(rows.in, sum_of(passing));
    const ArenaScope packing(ctx_.step());
    const Tensor packed = allocate(rows.in, sum_of(rows.send_rows));
    Counts sent(static_cast<size_t>(places_)), coming(static_cast<size_t>(places_));
    int64_t end = 0;
    for (int place = 0; place < places_; ++place) {
      const int64_t begin = end;
      for (int node = 0; node < nodes_; ++node) {
        const size_t peer = number(node, place);
        end += copy(packed, end, rows.in, rows.send_begin[peer], rows.send_rows[peer]);
      }
      sent[static_cast<size_t>(place)] = end - begin;
      coming[static_cast<size_t>(place)] = sum_of(std::span(passing).subspan(by_place(place, 0), nodes_));
    }
    move(node(), received, packed, sent, coming, rows.equal, std::string(purpose) + ", inside the node");
    return received;
  }

  // The second: what arrives from a node is ordered by place, which is the order of the group's ranks.
  void between_nodes(const RowExchange& rows, const Counts& passing, const Tensor& received, std::string_view purpose) {
    const Counts from = begins_of(passing);
    const Tensor packed = allocate(rows.in, received.rows());
    Counts sent(static_cast<size_t>(nodes_)), coming(static_cast<size_t>(nodes_));
    int64_t end = 0;
    for (int node = 0; node < nodes_; ++node) {
      const int64_t begin = end;
      for (int place = 0; place < places_; ++place) {
        const size_t block = by_place(place, node);
        end += copy(packed, end, received, from[block], passing[block]);
      }
      sent[static_cast<size_t>(node)] = end - begin;
      coming[static_cast<size_t>(node)] = sum_of(rows.receive_rows.subspan(number(node, 0), places_));
    }
    const int64_t total = sum_of(rows.receive_rows);
    const bool in_place = are_packed(rows.receive_begin, rows.receive_rows);
    const Tensor arrived = in_place ? rows.out.slice_rows(rows.receive_begin[0], total) : allocate(rows.out, total);
    move(between(), arrived, packed, sent, coming, rows.equal, std::string(purpose) + ", between nodes");
    if (in_place) return;
    int64_t at = 0;
    for (size_t peer = 0; peer < rows.receive_rows.size(); ++peer) {
      at += copy(rows.out, rows.receive_begin[peer], arrived, at, rows.receive_rows[peer]);
    }
  }

  static void move(Communicator& group, const Tensor& out, const Tensor& in, const Counts& sent, const Counts& coming,
                   bool equal, const std::string& purpose) {
    const Counts send_begin = begins_of(sent), receive_begin = begins_of(coming);
    group.wait(group.all_to_all_rows({.out = out,
                                      .in = in,
                                      .send_begin = send_begin,
                                      .send_rows = sent,
                                      .receive_begin = receive_begin,
                                      .receive_rows = coming,
                                      .equal = equal},
                                     purpose));
  }

  Tensor allocate(const Tensor& like, int64_t rows) {
    return ctx_.step().allocate("rows between nodes", like.dtype, {rows, like.cols()});
  }
  // Returns how many rows.
  int64_t copy(const Tensor& out, int64_t to, const Tensor& in, int64_t from, int64_t rows) {
    if (rows > 0) ctx_.copy(out.slice_rows(to, rows), in.slice_rows(from, rows));
    return rows;
  }

  Context& ctx_;
  Levels levels_;
  int places_, nodes_;
  int64_t direct_bytes_ = 0;  // to other nodes, by `flat`
};

}  // namespace

std::unique_ptr<Communicator> make_hierarchical_communicator(Context& ctx, Levels levels) {
  return std::make_unique<HierarchicalCommunicator>(ctx, std::move(levels));
}

}  // namespace mhmoe::comm
