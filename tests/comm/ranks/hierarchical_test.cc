// All-to-alls in two steps against those of one, on nodes of two ranks each: mpirun -np 4 test_comm_ranks.
#include <numeric>

#include "ranks.h"

#include "comm/groups.h"
#include "cpu/backend.h"

namespace mhmoe::comm {
namespace {

constexpr int kRanksPerNode = 2;

class HierarchicalAllToAll : public testing::TestWithParam<DType> {
 protected:
  HierarchicalAllToAll() {
    configure_job({.ranks_per_node = kRanksPerNode});
    options_ = {.nodes = nodes_of_ranks(job()), .hierarchical = Hierarchical::kOn};
    ctx_ = cpu::backend().create_context(0);
    flat_ = make_groups(cpu::backend(), *ctx_, job(), layout());
    stepwise_ = make_groups(cpu::backend(), *ctx_, job(), layout(), options_);
  }
  void TearDown() override { configure_job({.ranks_per_node = kRanks}); }

  static Layout layout() { return make_layout(kRanks, job().rank(), kRanks, kRanks); }
  static Traffic traffic(const ParallelGroups& groups) { return groups.expert->traffic(Communicator::Kind::kAllToAll); }
  static bool on_other_node(int peer) { return peer / kRanksPerNode != job().node(); }

  GroupOptions options_;
  std::unique_ptr<Context> ctx_;
  ParallelGroups flat_, stepwise_;
};

// rows(a, b) from rank a to rank b, with `gap` rows that belong to nobody before every block.
struct Exchange {
  template <class Rows>
  Exchange(DType dtype, int64_t width, int64_t gap, Rows&& rows) : in(dtype, 0), out(dtype, 0), width(width) {
    int64_t rows_in = 0, rows_out = 0;
    for (int peer = 0; peer < kRanks; ++peer) {
      send_begin.push_back(rows_in += gap);
      rows_in += send_rows.emplace_back(rows(job().rank(), peer));
      receive_begin.push_back(rows_out += gap);
      rows_out += receive_rows.emplace_back(rows(peer, job().rank()));
    }
    in = Values(dtype, rows_in * width);
    out = Values(dtype, rows_out * width);
    for (int64_t i = 0; i < in.count(); ++i) in.set(i, value_of(job().rank(), i));
    for (int64_t i = 0; i < out.count(); ++i) out.set(i, 127);
  }

  std::vector<uint8_t> run(Communicator& group, bool equal) {
    Values received = out;
    const Transfer transfer = group.all_to_all_rows({.out = received.rows(width),
                                                     .in = in.rows(width),
                                                     .send_begin = send_begin,
                                                     .send_rows = send_rows,
                                                     .receive_begin = receive_begin,
                                                     .receive_rows = receive_rows,
                                                     .equal = equal},
                                                    "test");
    group.wait(transfer);
    EXPECT_TRUE(received.untouched_behind());
    return bytes_of(received.tensor());
  }
  static std::vector<uint8_t> bytes_of(const Tensor& tensor) {
    const auto* data = static_cast<const uint8_t*>(tensor.data);
    return {data, data + tensor.bytes()};
  }

  Values in, out;
  int64_t width;
  std::vector<int64_t> send_begin, send_rows, receive_begin, receive_rows;
};

TEST_P(HierarchicalAllToAll, IsChosenWhereAsked) {
  EXPECT_TRUE(stepwise_.hierarchical);
  EXPECT_FALSE(flat_.hierarchical);
}

TEST_P(HierarchicalAllToAll, GivesTheSameBytes) {
  for (const int64_t n : {0, 1, 7, 1000}) {
    Values in(GetParam(), n * kRanks), direct(GetParam(), n * kRanks), stepwise(GetParam(), n * kRanks);
    for (int64_t i = 0; i < in.count(); ++i) in.set(i, value_of(job().rank(), i));
    flat_.expert->wait(flat_.expert->all_to_all(direct.tensor(), in.tensor(), "test"));
    stepwise_.expert->wait(stepwise_.expert->all_to_all(stepwise.tensor(), in.tensor(), "test"));
    EXPECT_EQ(Exchange::bytes_of(stepwise.tensor()), Exchange::bytes_of(direct.tensor())) << n << " a rank";
    EXPECT_TRUE(stepwise.untouched_behind());
  }
}

TEST_P(HierarchicalAllToAll, UnevenRowsArriveInTheSamePlaces) {
  const auto some = [](int from, int to) { return int64_t{(from + 2 * to) % 4}; };
  const auto none = [](int, int) { return int64_t{0}; };
  const auto to_one = [](int from, int to) { return to == 2 ? int64_t{from + 5} : int64_t{0}; };
  for (const int64_t width : {1, 5, 300}) {
    for (const int64_t gap : {0, 1}) {
      for (Exchange exchange : {Exchange(GetParam(), width, gap, some), Exchange(GetParam(), width, gap, none),
                                Exchange(GetParam(), width, gap, to_one)}) {
        EXPECT_EQ(exchange.run(*stepwise_.expert, false), exchange.run(*flat_.expert, false)) << width << ", " << gap;
      }
    }
  }
}

TEST_P(HierarchicalAllToAll, EqualRowsNeedNoCounts) {
  for (const int64_t gap : {0, 3}) {
    Exchange exchange(GetParam(), 8, gap, [](int, int) { return int64_t{3}; });
    const int64_t before = traffic(stepwise_).bytes;
    EXPECT_EQ(exchange.run(*stepwise_.expert, true), exchange.run(*flat_.expert, true)) << gap;
    const int64_t message = 3 * 8 * static_cast<int64_t>(size_of(GetParam()));
    const AllToAllVolume volume = hierarchical_volume({.nodes = 2, .ranks_per_node = 2}, message);
    EXPECT_EQ(traffic(stepwise_).bytes - before, volume.node_bytes + volume.network_bytes);
  }
}

// A rank sends on what its peers have for others: only all ranks together send what they would send directly.
TEST_P(HierarchicalAllToAll, SendsTheSameBytesBetweenNodes) {
  int64_t direct = 0;
  for (const int64_t width : {1, 5}) {
    Exchange exchange(GetParam(), width, 1, [](int from, int to) { return int64_t{(from + 2 * to) % 4}; });
    exchange.run(*stepwise_.expert, false);
    for (int peer = 0; peer < kRanks; ++peer) {
      if (on_other_node(peer)) {
        direct += exchange.send_rows[static_cast<size_t>(peer)] * width * static_cast<int64_t>(size_of(GetParam()));
      }
    }
  }
  EXPECT_EQ(traffic(stepwise_).calls, 2);
  std::vector<int64_t> sums{traffic(stepwise_).bytes_between_nodes, direct};
  job().sum(sums);
  EXPECT_EQ(sums[0], sums[1]);
  EXPECT_GT(traffic(stepwise_).bytes, traffic(stepwise_).bytes_between_nodes);
}

// More calls than a communicator remembers.
TEST_P(HierarchicalAllToAll, ManyCallsLeaveNoScratch) {
  Exchange exchange(GetParam(), 4, 1, [](int from, int to) { return int64_t{from + to}; });
  const std::vector<uint8_t> direct = exchange.run(*flat_.expert, false);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(exchange.run(*stepwise_.expert, false), direct);
  EXPECT_EQ(ctx_->step().used_bytes(), 0U);
}

// The memory plan, for equal rows on any rank, is what is used.
TEST_P(HierarchicalAllToAll, ScratchIsPlanned) {
  const auto ctx = make_sizing_context(DeviceKind::kCpu, nullptr);
  const ParallelGroups sizing = make_sizing_groups(*ctx, layout(), options_);
  Exchange exchange(GetParam(), 64, 2, [](int, int) { return int64_t{9}; });
  exchange.run(*sizing.expert, true);
  exchange.run(*stepwise_.expert, true);
  EXPECT_GT(ctx->step().peak_bytes(), 0U);
  EXPECT_EQ(ctx->step().peak_bytes(), ctx_->step().peak_bytes());
  EXPECT_EQ(traffic(sizing).bytes, traffic(stepwise_).bytes);
  EXPECT_EQ(traffic(sizing).bytes_between_nodes, traffic(stepwise_).bytes_between_nodes);
}

TEST_P(HierarchicalAllToAll, MisuseIsRefused) {
  Values a(GetParam(), 8), b(DType::kU8, 8), c(GetParam(), 9);
  EXPECT_THROW(stepwise_.expert->all_to_all(b.tensor(), a.tensor(), ""), Error);
  EXPECT_THROW(stepwise_.expert->all_to_all(a.tensor(), a.tensor(), ""), Error);
  EXPECT_THROW(stepwise_.expert->all_to_all(c.tensor(), c.tensor(), ""), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, HierarchicalAllToAll, testing::Values(DType::kF32, DType::kBF16, DType::kI32),
                         [](const auto& info) { return std::string(to_string(info.param)); });

}  // namespace
}  // namespace mhmoe::comm
