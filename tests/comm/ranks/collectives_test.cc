// Every collective, on every rank of four: mpirun -np 4 test_comm_ranks.
#include <cstring>

#include "ranks.h"

#include "comm/mpi_communicator.h"

namespace mhmoe::comm {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kI32, DType::kU8};
constexpr int64_t kSizes[] = {0, 1, 7, 1000, 65537};

// Whole calls of MPI, and calls cut into pieces as if MPI could count to no more than 10,000.
class Collectives : public testing::TestWithParam<int64_t> {
 protected:
  std::unique_ptr<Communicator> create(std::span<const int> ranks) const {
    return make_mpi_communicator(ranks, job().rank(), dynamic_cast<Watchdog&>(job().monitor()), GetParam());
  }
  // f(communicator) for every group that this rank is in.
  template <class F>
  void for_groups(F&& f) const {
    ASSERT_EQ(job().size(), kRanks);
    for (const std::vector<int>& ranks : groups_of(job().rank())) {
      SCOPED_TRACE(testing::Message() << "group of " << ranks.size() << " from " << ranks[0]);
      const std::unique_ptr<Communicator> group = create(ranks);
      ASSERT_EQ(group->ranks()[static_cast<size_t>(group->rank())], job().rank());
      f(*group);
    }
  }
};

TEST_P(Collectives, AllReduceAddsElementByElement) {
  for_groups([](Communicator& group) {
    for (const int64_t n : kSizes) {
      Values values(DType::kF32, n);
      for (int64_t i = 0; i < n; ++i) values.set(i, value_of(job().rank(), i));
      group.wait(group.all_reduce_sum(values.tensor(), "test"));
      for (int64_t i = 0; i < n; ++i) {
        int sum = 0;
        for (const int rank : group.ranks()) sum += value_of(rank, i);
        ASSERT_EQ(values.get(i), sum) << "element " << i << " of " << n;
      }
      EXPECT_TRUE(values.untouched_behind());
    }
  });
}

// Sums that depend on their order must do so alike on all ranks.
TEST_P(Collectives, AllReduceGivesAllRanksTheSameBits) {
  for_groups([](Communicator& group) {
    for (const int64_t n : kSizes) {
      std::vector<float> values(static_cast<size_t>(n));
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] =
            std::ldexp(1.0f / static_cast<float>(i % 13 + 3), static_cast<int>((i * 7 + job().rank() * 5) % 40));
      }
      group.wait(group.all_reduce_sum({values.data(), DType::kF32, {n}}, "test"));
      std::vector<float> all(values.size() * static_cast<size_t>(group.size()));
      group.wait(
          group.all_gather({all.data(), DType::kF32, {n * group.size()}}, {values.data(), DType::kF32, {n}}, ""));
      for (int p = 0; p < group.size() && n > 0; ++p) {
        EXPECT_EQ(std::memcmp(all.data() + p * n, values.data(), values.size() * sizeof(float)), 0) << "rank " << p;
      }
    }
  });
}

TEST_P(Collectives, ReduceScatterAlsoInPlace) {
  for_groups([](Communicator& group) {
    for (const int64_t n : kSizes) {
      for (const bool in_place : {false, true}) {
        Values in(DType::kF32, n * group.size()), out(DType::kF32, n);
        for (int64_t i = 0; i < in.count(); ++i) in.set(i, value_of(job().rank(), i));
        const int64_t begin = group.rank() * n;
        const Tensor own = in.tensor().slice(begin, n);
        group.wait(group.reduce_scatter_sum(in_place ? own : out.tensor(), in.tensor(), "test"));
        for (int64_t i = 0; i < n; ++i) {
          int sum = 0;
          for (const int rank : group.ranks()) sum += value_of(rank, begin + i);
          ASSERT_EQ(in_place ? in.get(begin + i) : out.get(i), sum) << "element " << i << " of " << n;
        }
        EXPECT_TRUE(in.untouched_behind() && out.untouched_behind());
      }
    }
  });
}

// f(rank, where its n elements begin, element)
template <class F>
void for_parts(const Communicator& group, int64_t n, F&& f) {
  for (int p = 0; p < group.size(); ++p) {
    for (int64_t i = 0; i < n; ++i) f(group.ranks()[static_cast<size_t>(p)], p * n, i);
  }
}

TEST_P(Collectives, AllGatherOfEveryTypeAlsoInPlace) {
  for_groups([](Communicator& group) {
    for (const DType dtype : kTypes) {
      for (const int64_t n : kSizes) {
        for (const bool in_place : {false, true}) {
          Values in(dtype, n), out(dtype, n * group.size());
          for (int64_t i = 0; i < n; ++i) in.set(i, value_of(job().rank(), i));
          const Tensor own = out.tensor().slice(group.rank() * n, n);
          if (in_place && n > 0) std::memcpy(own.data, in.tensor().data, own.bytes());
          group.wait(group.all_gather(out.tensor(), in_place ? own : in.tensor(), "test"));
          for_parts(group, n, [&](int from, int64_t begin, int64_t i) {
            ASSERT_EQ(out.get(begin + i), value_of(from, i))
                << to_string(dtype) << " from " << from << " element " << i << " of " << n;
          });
          EXPECT_TRUE(out.untouched_behind());
        }
      }
    }
  });
}

TEST_P(Collectives, AllToAllIsATransposition) {
  for_groups([](Communicator& group) {
    for (const DType dtype : kTypes) {
      for (const int64_t n : kSizes) {
        Values in(dtype, n * group.size()), out(dtype, n * group.size());
        for (int64_t i = 0; i < in.count(); ++i) in.set(i, value_of(job().rank(), i));
        group.wait(group.all_to_all(out.tensor(), in.tensor(), "test"));
        for_parts(group, n, [&](int from, int64_t begin, int64_t i) {
          ASSERT_EQ(out.get(begin + i), value_of(from, group.rank() * n + i))
              << to_string(dtype) << " from " << from << " element " << i << " of " << n;
        });
        EXPECT_TRUE(out.untouched_behind());
      }
    }
  });
}

// Rank a sends (a + 2 b) % 4 rows to rank b: none for some, and begins with a gap of one row before every block.
struct Uneven {
  static int64_t rows(int from, int to) { return (from + 2 * to) % 4; }

  explicit Uneven(const Communicator& group) {
    const int me = job().rank();
    int64_t in = 0, out = 0;
    for (const int peer : group.ranks()) {
      send_begin.push_back(in + 1);
      send_rows.push_back(rows(me, peer));
      receive_begin.push_back(out + 1);
      receive_rows.push_back(rows(peer, me));
      in += 1 + send_rows.back();
      out += 1 + receive_rows.back();
    }
    rows_in = in;
    rows_out = out;
  }

  std::vector<int64_t> send_begin, send_rows, receive_begin, receive_rows;
  int64_t rows_in = 0, rows_out = 0;
};

TEST_P(Collectives, RowsTravelAndLeaveOthersAlone) {
  for_groups([](Communicator& group) {
    for (const DType dtype : kTypes) {
      for (const int64_t width : {1, 5, 300}) {
        const Uneven uneven(group);
        Values in(dtype, uneven.rows_in * width), out(dtype, uneven.rows_out * width);
        for (int64_t i = 0; i < out.count(); ++i) out.set(i, 127);
        for (size_t p = 0; p < uneven.send_rows.size(); ++p) {
          for (int64_t i = 0; i < uneven.send_rows[p] * width; ++i) {
            in.set(uneven.send_begin[p] * width + i, value_of(job().rank() * kRanks + group.ranks()[p], i));
          }
        }
        group.wait(group.all_to_all_rows({.out = out.rows(width),
                                          .in = in.rows(width),
                                          .send_begin = uneven.send_begin,
                                          .send_rows = uneven.send_rows,
                                          .receive_begin = uneven.receive_begin,
                                          .receive_rows = uneven.receive_rows},
                                         "test"));
        for (size_t p = 0; p < uneven.receive_rows.size(); ++p) {
          const int64_t begin = uneven.receive_begin[p] * width;
          for (int64_t i = -width; i < uneven.receive_rows[p] * width; ++i) {
            const int want = i < 0 ? 127 : value_of(group.ranks()[p] * kRanks + job().rank(), i);
            ASSERT_EQ(out.get(begin + i), want) << to_string(dtype) << " from " << group.ranks()[p] << " element " << i;
          }
        }
        EXPECT_TRUE(out.untouched_behind());
      }
    }
  });
}

TEST_P(Collectives, NobodySendsAnything) {
  for_groups([](Communicator& group) {
    const std::vector<int64_t> none(static_cast<size_t>(group.size()));
    Values nothing(DType::kBF16, 0);
    const Transfer transfer = group.all_to_all_rows({.out = nothing.rows(8),
                                                     .in = nothing.rows(8),
                                                     .send_begin = none,
                                                     .send_rows = none,
                                                     .receive_begin = none,
                                                     .receive_rows = none},
                                                    "test");
    group.wait(transfer);
    EXPECT_EQ(group.traffic(Communicator::Kind::kAllToAll).bytes, 0);
  });
}

// Many at once, waited for in another order, or not at all.
TEST_P(Collectives, TransfersOverlap) {
  for_groups([](Communicator& group) {
    constexpr int kCalls = 200;
    std::vector<Values> values;
    std::vector<Transfer> transfers;
    for (int call = 0; call < kCalls; ++call) {
      values.emplace_back(DType::kF32, 50);
      for (int64_t i = 0; i < 50; ++i) values.back().set(i, value_of(job().rank(), i + call));
      transfers.push_back(group.all_reduce_sum(values.back().tensor(), "test"));
    }
    for (int call = kCalls - 1; call >= kCalls - 64; --call) group.wait(transfers[static_cast<size_t>(call)]);
    for (int call = 0; call < kCalls; ++call) {
      for (int64_t i = 0; i < 50; ++i) {
        int sum = 0;
        for (const int rank : group.ranks()) sum += value_of(rank, i + call);
        ASSERT_EQ(values[static_cast<size_t>(call)].get(i), sum) << "call " << call;
      }
    }
  });
}

TEST_P(Collectives, TrafficIsWhatGoesToOthers) {
  for_groups([](Communicator& group) {
    const int64_t p = group.size(), n = 30;
    Values whole(DType::kF32, n * p), other(DType::kF32, n * p);
    const Tensor part = whole.tensor().slice(group.rank() * n, n);
    group.wait(group.all_reduce_sum(whole.tensor(), ""));
    group.wait(group.reduce_scatter_sum(part, whole.tensor(), ""));
    group.wait(group.all_gather(whole.tensor(), part, ""));
    group.wait(group.all_to_all(other.tensor(), whole.tensor(), ""));
    EXPECT_EQ(group.traffic(Communicator::Kind::kAllReduce).bytes, 2 * (p - 1) * n * 4);
    EXPECT_EQ(group.traffic(Communicator::Kind::kReduceScatter).bytes, (p - 1) * n * 4);
    EXPECT_EQ(group.traffic(Communicator::Kind::kAllGather).bytes, (p - 1) * n * 4);
    EXPECT_EQ(group.traffic(Communicator::Kind::kAllToAll).bytes, (p - 1) * n * 4);
    EXPECT_EQ(group.traffic(Communicator::Kind::kAllToAll).calls, 1);
  });
}

TEST_P(Collectives, MisuseIsRefused) {
  for_groups([](Communicator& group) {
    Values a(DType::kF32, 8), b(DType::kBF16, 8), c(DType::kF32, 9);
    EXPECT_THROW(group.all_reduce_sum(b.tensor(), ""), Error);
    EXPECT_THROW(group.all_to_all(b.tensor(), a.tensor(), ""), Error);
    EXPECT_THROW(group.all_to_all(a.tensor(), a.tensor(), ""), Error);
    EXPECT_THROW(group.all_gather(c.tensor(), a.tensor(), ""), Error);
    EXPECT_THROW(group.reduce_scatter_sum(c.tensor(), a.tensor(), ""), Error);
  });
}

INSTANTIATE_TEST_SUITE_P(Counts, Collectives, testing::Values(kLargestCount, int64_t{10000}),
                         [](const auto& info) { return info.param == 10000 ? "Pieces" : "Whole"; });

}  // namespace
}  // namespace mhmoe::comm
