// What every collective promises, at once, late, and in recorded work.
#include <algorithm>
#include <numeric>

#include "cuda/nccl/ranks_test.h"

namespace mhmoe {
namespace {

// Exact in bf16 too: rank r's element i.
template <class T>
T value(int64_t rank, int64_t i) {
  return T(static_cast<float>(rank * 32 + i % 32));
}
template <class T>
std::vector<T> numbered(int64_t rank, int64_t count) {
  std::vector<T> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(value<T>(rank, i));
  return values;
}
template <class T>
std::vector<float> floats(const std::vector<T>& values) {
  std::vector<float> out;
  for (const T& element : values) out.push_back(static_cast<float>(element));
  return out;
}

// Every test's work copies its input on the compute stream first and its output last, so that a transfer that begins
// too early or is read too early is seen.
class NcclCommunicator : public test::RanksTest {
 protected:
  template <class T>
  void expect(const Tensor& tensor, const std::vector<T>& expected, const std::string& mode) {
    ASSERT_EQ(floats(downloaded<T>(tensor)), floats(expected)) << mode;
    ctx_->fill_zero(tensor);
  }

  template <class T>
  void gather(int64_t count, bool in_place) {
    const Tensor source = uploaded(numbered<T>(rank_, count));
    const Tensor all = uploaded(std::vector<T>(static_cast<size_t>(test::kRanks * count)));
    const Tensor own =
        in_place ? all.slice(rank_ * count, count) : uploaded(std::vector<T>(static_cast<size_t>(count)));
    const Tensor result = uploaded(std::vector<T>(static_cast<size_t>(test::kRanks * count)));
    std::vector<T> expected;
    for (int64_t r = 0; r < test::kRanks; ++r) {
      for (int64_t i = 0; i < count; ++i) expected.push_back(value<T>(r, i));
    }
    in_every_mode(
        [&] {
          ctx_->copy(own, source);
          world_->wait(world_->all_gather(all, own, "test"));
          ctx_->copy(result, all);
        },
        [&](const std::string& mode) { expect(result, expected, mode); });
  }

  template <class T>
  void exchange(int64_t count) {
    const Tensor source = uploaded(numbered<T>(rank_, test::kRanks * count));
    const std::vector<T> zeros(static_cast<size_t>(test::kRanks * count));
    const Tensor in = uploaded(zeros), out = uploaded(zeros), result = uploaded(zeros);
    std::vector<T> expected;
    for (int64_t r = 0; r < test::kRanks; ++r) {
      for (int64_t i = 0; i < count; ++i) expected.push_back(value<T>(r, rank_ * count + i));
    }
    in_every_mode(
        [&] {
          ctx_->copy(in, source);
          world_->wait(world_->all_to_all(out, in, "test"));
          ctx_->copy(result, out);
        },
        [&](const std::string& mode) { expect(result, expected, mode); });
  }
};

TEST_F(NcclCommunicator, AllReduceSumsInPlace) {
  for (const int64_t count : {0, 1, 1000}) {
    const Tensor source = uploaded(numbered<float>(rank_, count));
    const Tensor values = uploaded(numbered<float>(0, count)), result = uploaded(numbered<float>(0, count));
    std::vector<float> expected;
    for (int64_t i = 0; i < count; ++i) expected.push_back(static_cast<float>(6 * 32 + 4 * (i % 32)));
    in_every_mode(
        [&] {
          ctx_->copy(values, source);
          world_->wait(world_->all_reduce_sum(values, "test"));
          ctx_->copy(result, values);
        },
        [&](const std::string& mode) { expect(result, expected, mode); });
  }
}

TEST_F(NcclCommunicator, ReduceScatterGivesEachRankItsBlock) {
  const int64_t count = 37;
  for (const bool in_place : {false, true}) {
    const Tensor source = uploaded(numbered<float>(rank_, test::kRanks * count));
    const Tensor in = uploaded(numbered<float>(0, test::kRanks * count));
    const Tensor out = in_place ? in.slice(rank_ * count, count) : uploaded(numbered<float>(0, count));
    const Tensor result = uploaded(numbered<float>(0, count));
    std::vector<float> expected;
    for (int64_t i = 0; i < count; ++i) expected.push_back(static_cast<float>(6 * 32 + 4 * ((rank_ * count + i) % 32)));
    in_every_mode(
        [&] {
          ctx_->copy(in, source);
          world_->wait(world_->reduce_scatter_sum(out, in, "test"));
          ctx_->copy(result, out);
        },
        [&](const std::string& mode) { expect(result, expected, mode); });
  }
}

TEST_F(NcclCommunicator, AllGatherOfEveryTypeAlsoInPlace) {
  for (const bool in_place : {false, true}) {
    gather<float>(19, in_place);
    gather<bfloat16>(19, in_place);
    gather<int32_t>(19, in_place);
    gather<uint8_t>(19, in_place);
  }
  gather<float>(0, false);
}

TEST_F(NcclCommunicator, AllToAllOfEveryType) {
  exchange<float>(19);
  exchange<bfloat16>(19);
  exchange<int32_t>(19);
  exchange<int64_t>(19);
  exchange<float>(0);
}

// Rank r has none, one or two rows for rank p, itself included; they lie in another order than ranks, with gaps.
TEST_F(NcclCommunicator, RowsOfUnequalNumbersAlsoNone) {
  constexpr int64_t kColumns = 5, kGap = 4;
  const auto rows_between = [](int64_t from, int64_t to) { return (from + to + (from < to ? 1 : 0)) % 3; };
  std::vector<int64_t> begin, send, receive;
  std::vector<float> expected(test::kRanks * kGap * kColumns, -1);
  for (int64_t p = 0; p < test::kRanks; ++p) {
    begin.push_back((test::kRanks - 1 - p) * kGap);
    send.push_back(rows_between(rank_, p));
    receive.push_back(rows_between(p, rank_));
    const int64_t sent_from = (test::kRanks - 1 - rank_) * kGap * kColumns;
    for (int64_t i = 0; i < receive.back() * kColumns; ++i) {
      expected[static_cast<size_t>(begin.back() * kColumns + i)] = value<float>(p, sent_from + i);
    }
  }
  const Tensor source = uploaded(numbered<float>(rank_, test::kRanks * kGap * kColumns), kColumns);
  const Tensor untouched = uploaded(std::vector<float>(expected.size(), -1), kColumns);
  const Tensor in = uploaded(expected, kColumns), out = uploaded(expected, kColumns);
  const Tensor result = uploaded(expected, kColumns);
  in_every_mode(
      [&] {
        ctx_->copy(in, source);
        ctx_->copy(out, untouched);
        world_->wait(world_->all_to_all_rows({out, in, begin, send, begin, receive}, "test"));
        ctx_->copy(result, out);
      },
      [&](const std::string& mode) { expect(result, expected, mode); });
  const std::vector<int64_t> none(test::kRanks);
  world_->wait(world_->all_to_all_rows({out, in, begin, none, begin, none}, "nothing at all"));
  ctx_->synchronize();
}

TEST_F(NcclCommunicator, DisjointGroupsOfOneCall) {
  const std::vector<std::vector<int>> halves = {{0, 1}, {2, 3}}, across = {{0, 2}, {1, 3}}, uneven = {{0}, {1, 2, 3}};
  const test::WithVariable streams("EMULATOR_STREAMS", test::deferred(7));
  for (const auto& groups : {halves, across, uneven}) {
    const auto& ranks = std::ranges::find(groups[0], rank_) != groups[0].end() ? groups[0] : groups[1];
    const auto part = group(ranks);
    EXPECT_EQ(part->size(), static_cast<int>(ranks.size()));
    EXPECT_TRUE(std::ranges::equal(part->ranks(), ranks));
    EXPECT_EQ(part->ranks()[static_cast<size_t>(part->rank())], rank_);
    const Tensor values = uploaded(std::vector<float>{static_cast<float>(rank_)});
    const Tensor of_all = uploaded(std::vector<float>{static_cast<float>(rank_)});
    const Transfer first = part->all_reduce_sum(values, "part");
    const Transfer second = world_->all_reduce_sum(of_all, "world");
    part->wait(first);
    world_->wait(second);
    EXPECT_EQ(downloaded<float>(values)[0], static_cast<float>(std::accumulate(ranks.begin(), ranks.end(), 0)));
    EXPECT_EQ(downloaded<float>(of_all)[0], 6);
  }
}

TEST_F(NcclCommunicator, CountsWhatGoesToOthers) {
  const Tensor values = uploaded(std::vector<float>(400)), part = uploaded(std::vector<float>(100));
  world_->wait(world_->all_reduce_sum(values, "test"));
  world_->wait(world_->reduce_scatter_sum(part, values, "test"));
  world_->wait(world_->all_gather(values, part, "test"));
  const Tensor out = uploaded(std::vector<float>(400));
  world_->wait(world_->all_to_all(out, values, "test"));
  ctx_->synchronize();
  using Kind = Communicator::Kind;
  EXPECT_EQ(world_->traffic(Kind::kAllReduce).bytes, 2 * 1600 * 3 / 4);
  EXPECT_EQ(world_->traffic(Kind::kReduceScatter).bytes, 1600 * 3 / 4);
  EXPECT_EQ(world_->traffic(Kind::kAllGather).bytes, 1600 * 3 / 4);
  EXPECT_EQ(world_->traffic(Kind::kAllToAll).bytes, 1600 * 3 / 4);
}

TEST_F(NcclCommunicator, RecordedCallsCountWhenTheyArePlayed) {
  const Tensor values = uploaded(std::vector<float>(400));
  const auto work = [&] { world_->wait(world_->all_reduce_sum(values, "test")); };
  const auto sent = [&] { return world_->traffic(Communicator::Kind::kAllReduce).bytes / 2400; };
  work();
  EXPECT_EQ(sent(), 1);
  const auto recorded = ctx_->record(work);
  EXPECT_EQ(sent(), 1);
  for (int i = 0; i < 3; ++i) recorded->replay();
  EXPECT_EQ(sent(), 4);
  EXPECT_EQ(world_->traffic(Communicator::Kind::kAllReduce).calls, 4);
  work();
  EXPECT_EQ(sent(), 5);
  ctx_->synchronize();
}

TEST_F(NcclCommunicator, TellsTheMonitorWhatItEntersAndWaits) {
  test::ScriptedMonitor& monitor = test::job().monitor();
  EXPECT_TRUE(monitor.registered());
  monitor.entered.clear();
  const int waits = monitor.device_waits;
  const Tensor values = uploaded(std::vector<float>(8));
  world_->wait(world_->all_reduce_sum(values, "layers.3"));
  ctx_->synchronize();
  EXPECT_EQ(monitor.entered, std::vector<std::string>{"all_reduce 32 layers.3"});
  EXPECT_GT(monitor.device_waits, waits);
  EXPECT_EQ(monitor.depth, 0);
}

TEST_F(NcclCommunicator, ManyTransfersAreUnderWayAtOneTime) {
  const test::WithVariable streams("EMULATOR_STREAMS", test::deferred(3));
  std::vector<Tensor> values;
  std::vector<Transfer> transfers;
  for (int i = 0; i < 64; ++i) values.push_back(uploaded(std::vector<float>{static_cast<float>(i)}));
  for (const Tensor& tensor : values) transfers.push_back(world_->all_reduce_sum(tensor, "test"));
  for (const Transfer& transfer : transfers) world_->wait(transfer);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(downloaded<float>(values[static_cast<size_t>(i)])[0], static_cast<float>(4 * i));
  }
  world_->wait(world_->all_reduce_sum(values[0], "one more"));
  EXPECT_THROW(world_->wait(transfers[0]), Error);
}

}  // namespace
}  // namespace mhmoe
