#include "comm/mpi_communicator.h"

#include <mpi.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "comm/mpi_check.h"
#include "comm/mpi_counts.h"
#include "device/traffic_counter.h"

namespace mhmoe::comm {
namespace {

// What must live until a call has ended.
struct Pending {
  uint64_t number = 0;
  int64_t operation = 0;  // the watchdog's
  Communicator::Kind kind{};
  std::vector<MPI_Request> requests;
  DataType type;
  bool under_way = false;
};

char* bytes_at(const Tensor& tensor, int64_t row, int64_t row_bytes) {
  return static_cast<char*>(tensor.data) + row * row_bytes;
}

// Sums have the same bits on all ranks: in every algorithm that Open MPI has for them, an element is added up by one
// rank and passed on (reduce and broadcast, ring, Rabenseifner), or, in recursive doubling, all ranks add the same
// pairs, and a + b is b + a.
class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(std::span<const int> ranks, int rank, Watchdog& watchdog, int64_t largest)
      : ranks_(ranks.begin(), ranks.end()),
        rank_(static_cast<int>(std::ranges::find(ranks_, rank) - ranks_.begin())),
        watchdog_(watchdog),
        largest_(largest),
        traffic_(rank_, size()) {
    MHMOE_CHECK(rank_ < size() && std::ranges::is_sorted(ranks_),
                "a group's ranks ascend and have the caller, rank {}, among them", rank);
    if (size() > 1) create();
  }
  MpiCommunicator(const MpiCommunicator&) = delete;
  MpiCommunicator& operator=(const MpiCommunicator&) = delete;
  ~MpiCommunicator() override {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (comm_ != MPI_COMM_NULL && finalized == 0) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }
  std::span<const int> ranks() const override { return ranks_; }

  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    check_f32(values, purpose);
    traffic_.add(Kind::kAllReduce, values.bytes());
    return start(Kind::kAllReduce, "all_reduce", static_cast<int64_t>(values.bytes()), purpose, [&](Pending& pending) {
      in_pieces(values, pending, [&](float* data, int count, MPI_Request* request) {
        check_mpi(MPI_Iallreduce(MPI_IN_PLACE, data, count, MPI_FLOAT, MPI_SUM, comm_, request), "MPI_Iallreduce");
      });
    });
  }

  // A reduction to each rank: every rank sends its part of it once, where Open MPI's own call gathers at rank 0 first.
  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check_f32(in, purpose);
    check_parts(out, in, purpose);
    traffic_.add(Kind::kReduceScatter, in.bytes());
    if (size() == 1) return copy(out, in);
    return start(Kind::kReduceScatter, "reduce_scatter", static_cast<int64_t>(in.bytes()), purpose,
                 [&](Pending& pending) {
                   for (int root = 0; root < size(); ++root) reduce_to(root, out, in, pending);
                 });
  }

  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check_parts(in, out, purpose);
    traffic_.add(Kind::kAllGather, out.bytes());
    if (size() == 1) return copy(out, in);
    return start(Kind::kAllGather, "all_gather", static_cast<int64_t>(out.bytes()), purpose, [&](Pending& pending) {
      Block part(static_cast<int64_t>(in.bytes()), largest_);
      const bool in_place = in.data == bytes_at(out, rank_, static_cast<int64_t>(in.bytes())) && in.bytes() > 0;
      check_mpi(MPI_Iallgather(in_place ? MPI_IN_PLACE : in.data, part.count(), part.type(), out.data, part.count(),
                               part.type(), comm_, new_request(pending)),
                "MPI_Iallgather");
      pending.type = part.take_type();
    });
  }

  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    MHMOE_CHECK(out.dtype == in.dtype && out.count() == in.count() && in.count() % size() == 0,
                "[{}] out is {}, in is {}, for {} ranks", purpose, out.describe(), in.describe(), size());
    MHMOE_CHECK(out.data != in.data || in.count() == 0, "[{}] all_to_all is not done in place", purpose);
    check_host(out, purpose);
    traffic_.add(Kind::kAllToAll, in.bytes());
    if (size() == 1) return copy(out, in);
    return start(Kind::kAllToAll, "all_to_all", static_cast<int64_t>(in.bytes()), purpose, [&](Pending& pending) {
      Block part(static_cast<int64_t>(in.bytes()) / size(), largest_);
      check_mpi(MPI_Ialltoall(in.data, part.count(), part.type(), out.data, part.count(), part.type(), comm_,
                              new_request(pending)),
                "MPI_Ialltoall");
      pending.type = part.take_type();
    });
  }

  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    const int64_t row_bytes = check_rows(rows, purpose);
    traffic_.add(rows);
    if (size() == 1) return copy_rows(rows, row_bytes);
    return start(Kind::kAllToAll, "all_to_all_rows", row_bytes, purpose, [&](Pending& pending) {
      pending.type = DataType::of_bytes(row_bytes, largest_);
      exchange_rows(rows, row_bytes, purpose, pending);
    });
  }

  void wait(Transfer transfer) override {
    if (transfer.number == 0) return;
    Pending& pending = pending_of(transfer.number);
    MHMOE_CHECK(pending.number == transfer.number, "wait for transfer {} after {} were started", transfer.number,
                started_);
    finish(pending);
  }

  Traffic traffic(Kind kind) const override { return traffic_.of(kind); }

 private:
  static constexpr size_t kPending = 64;
  static constexpr uint64_t kTags = 32768;  // what MPI grants at least

  void create() {
    MPI_Group world = MPI_GROUP_NULL, group = MPI_GROUP_NULL;
    check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
    check_mpi(MPI_Group_incl(world, size(), ranks_.data(), &group), "MPI_Group_incl");
    watchdog_.enter(ranks_, "create_communicator", size(), "");
    check_mpi(MPI_Comm_create_group(MPI_COMM_WORLD, group, 0, &comm_), "MPI_Comm_create_group");
    watchdog_.leave();
    MPI_Group_free(&group);
    MPI_Group_free(&world);
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }

  Pending& pending_of(uint64_t number) { return pending_[number % kPending]; }

  template <class Call>
  Transfer start(Kind kind, std::string_view name, int64_t bytes, std::string_view purpose, Call&& call) {
    if (size() == 1) return {};
    Pending& pending = pending_of(++started_);
    finish(pending);  // of 64 calls ago, where nobody waited for it
    watchdog_.enter(ranks_, name, bytes, purpose);
    pending.number = started_;
    pending.under_way = true;
    pending.kind = kind;
    call(pending);
    pending.operation = watchdog_.pause();
    return {started_};
  }

  void finish(Pending& pending) {
    if (!std::exchange(pending.under_way, false)) return;
    const int64_t begin = now();
    watchdog_.resume(pending.operation);
    check_mpi(MPI_Waitall(static_cast<int>(pending.requests.size()), pending.requests.data(), MPI_STATUSES_IGNORE),
              "MPI_Waitall");
    watchdog_.leave();
    pending.requests.clear();
    pending.type = DataType();
    traffic_.add_waiting(pending.kind, seconds_of(now() - begin));
  }

  static MPI_Request* new_request(Pending& pending) { return &pending.requests.emplace_back(MPI_REQUEST_NULL); }

  // call(data, count, request) for pieces that MPI can count.
  template <class Call>
  void in_pieces(const Tensor& values, Pending& pending, Call&& call) {
    const Chunks split = chunks_of(values.count(), largest_);
    auto* data = static_cast<float*>(values.data);
    for (int64_t i = 0; i < split.chunks; ++i)
      call(data + i * split.chunk, int_count(split.chunk, ""), new_request(pending));
    if (split.rest > 0) call(data + split.chunks * split.chunk, int_count(split.rest, ""), new_request(pending));
  }

  void reduce_to(int root, const Tensor& out, const Tensor& in, Pending& pending) {
    const Tensor part = in.slice(root * out.count(), out.count());
    const bool in_place = part.data == out.data;
    in_pieces(part, pending, [&](float* data, int count, MPI_Request* request) {
      float* sum = root != rank_ ? nullptr : static_cast<float*>(out.data) + (data - static_cast<float*>(part.data));
      const void* mine = root == rank_ && in_place ? MPI_IN_PLACE : data;
      check_mpi(MPI_Ireduce(mine, sum, count, MPI_FLOAT, MPI_SUM, root, comm_, request), "MPI_Ireduce");
    });
  }

  // Messages between pairs, of which both sides know whether there is one: Open MPI 4.1's MPI_Ialltoallv gets out of
  // step with the other ranks on one that receives nothing.
  void exchange_rows(const RowExchange& rows, int64_t row_bytes, std::string_view purpose, Pending& pending) {
    const int tag = static_cast<int>(started_ % kTags);
    const auto each_peer = [&](std::span<const int64_t> counts, auto&& message) {
      for (int distance = 1; distance < size(); ++distance) {
        const int peer = (rank_ + distance) % size();
        const int64_t count = counts[static_cast<size_t>(peer)];
        if (count > 0) message(peer, int_count(count, purpose));
      }
    };
    each_peer(rows.receive_rows, [&](int peer, int count) {
      void* to = bytes_at(rows.out, rows.receive_begin[static_cast<size_t>(peer)], row_bytes);
      check_mpi(MPI_Irecv(to, count, pending.type.get(), peer, tag, comm_, new_request(pending)), "MPI_Irecv");
    });
    each_peer(rows.send_rows, [&](int peer, int count) {
      const void* from = bytes_at(rows.in, rows.send_begin[static_cast<size_t>(peer)], row_bytes);
      check_mpi(MPI_Isend(from, count, pending.type.get(), peer, tag, comm_, new_request(pending)), "MPI_Isend");
    });
    copy_rows(rows, row_bytes);
  }

  static Transfer copy(const Tensor& out, const Tensor& in) {
    if (out.data != in.data) std::memcpy(out.data, in.data, in.bytes());
    return {};
  }
  // Those that stay on this rank.
  Transfer copy_rows(const RowExchange& rows, int64_t row_bytes) const {
    const auto own = static_cast<size_t>(rank_);
    if (rows.send_rows[own] == 0) return {};
    std::memmove(bytes_at(rows.out, rows.receive_begin[own], row_bytes),
                 bytes_at(rows.in, rows.send_begin[own], row_bytes),
                 static_cast<size_t>(rows.send_rows[own] * row_bytes));
    return {};
  }

  static void check_host(const Tensor& tensor, std::string_view purpose) {
    MHMOE_CHECK(tensor.device == DeviceKind::kCpu, "[{}] {} is not in host memory", purpose, tensor.describe());
  }
  static void check_f32(const Tensor& values, std::string_view purpose) {
    MHMOE_CHECK(values.dtype == DType::kF32, "[{}] sums are of f32, got {}", purpose, values.describe());
    check_host(values, purpose);
  }
  void check_parts(const Tensor& part, const Tensor& whole, std::string_view purpose) const {
    MHMOE_CHECK(part.dtype == whole.dtype && part.count() * size() == whole.count(),
                "[{}] {} is not one of {} equal parts of {}", purpose, part.describe(), size(), whole.describe());
    check_host(part, purpose);
    check_host(whole, purpose);
  }
  // The bytes of a row.
  int64_t check_rows(const RowExchange& rows, std::string_view purpose) const {
    MHMOE_CHECK(rows.out.dtype == rows.in.dtype && rows.out.cols() == rows.in.cols(), "[{}] out is {}, in is {}",
                purpose, rows.out.describe(), rows.in.describe());
    check_host(rows.out, purpose);
    check_host(rows.in, purpose);
    const auto check = [&](const Tensor& tensor, std::span<const int64_t> begins, std::span<const int64_t> counts) {
      MHMOE_CHECK(begins.size() == ranks_.size() && counts.size() == ranks_.size(), "[{}] {} and {} of {} ranks",
                  purpose, begins.size(), counts.size(), ranks_.size());
      for (size_t i = 0; i < begins.size(); ++i) {
        MHMOE_CHECK(begins[i] >= 0 && counts[i] >= 0 && begins[i] + counts[i] <= tensor.rows(),
                    "[{}] rows {} and {} more of {}", purpose, begins[i], counts[i], tensor.describe());
      }
    };
    check(rows.in, rows.send_begin, rows.send_rows);
    check(rows.out, rows.receive_begin, rows.receive_rows);
    const size_t own = static_cast<size_t>(rank_);
    MHMOE_CHECK(rows.send_rows[own] == rows.receive_rows[own], "[{}] {} rows are sent to this rank and {} expected",
                purpose, rows.send_rows[own], rows.receive_rows[own]);
    return rows.in.cols() * static_cast<int64_t>(size_of(rows.in.dtype));
  }

  std::vector<int> ranks_;
  int rank_;
  Watchdog& watchdog_;
  int64_t largest_;
  MPI_Comm comm_ = MPI_COMM_NULL;
  uint64_t started_ = 0;
  std::array<Pending, kPending> pending_;
  TrafficCounter traffic_;
};

}  // namespace

std::unique_ptr<Communicator> make_mpi_communicator(std::span<const int> ranks, int rank, Watchdog& watchdog,
                                                    int64_t largest_count) {
  return std::make_unique<MpiCommunicator>(ranks, rank, watchdog, largest_count);
}

}  // namespace mhmoe::comm
