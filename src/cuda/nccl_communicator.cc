#include "cuda/nccl_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <exception>
#include <utility>
#include <vector>

#include "core/log.h"
#include "cuda/context.h"
#include "cuda/handles.h"
#include "cuda/nccl_calls.h"
#include "cuda/nccl_group.h"
#include "cuda/nccl_handle.h"
#include "cuda/peers.h"
#include "device/self_communicator.h"
#include "device/traffic_counter.h"

namespace mhmoe::cuda {
namespace {

bool is_captured(cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  MHMOE_CUDA_CHECK(cudaStreamIsCapturing(stream, &status));
  return status != cudaStreamCaptureStatusNone;
}

class NcclCommunicator final : public Communicator, private Peer {
 public:
  NcclCommunicator(Context& ctx, Job& job, std::vector<int> ranks, int rank, const ncclUniqueId& id)
      : ctx_(ctx),
        peers_(peers_of(ctx)),
        monitor_(job.monitor()),
        stream_(static_cast<cudaStream_t>(ctx.communication_stream())),
        ranks_(std::move(ranks)),
        rank_(rank),
        counter_(rank, size()),
        recorded_(rank, size()),
        exceptions_(std::uncaught_exceptions()),
        handle_(id, size(), rank) {
    for (Slot& slot : slots_) slot.end = make_event();
    peers_.add(*this, monitor_);
  }

  // After an error the other ranks do not come any more.
  ~NcclCommunicator() override {
    if (std::uncaught_exceptions() > exceptions_) {
      peers_.give_up();
    } else if (!handle_.aborted()) {
      finish();
    }
    peers_.remove(*this);
  }
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(ranks_.size()); }
  std::span<const int> ranks() const override { return ranks_; }

  Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) override {
    check(values.dtype == DType::kF32, values, values, purpose);
    const Transfer transfer = start("all_reduce", values.bytes(), purpose, [&](ncclComm_t comm) {
      MHMOE_NCCL_CHECK(
          comm, ncclAllReduce(values.data, values.data, element_count(values), ncclFloat32, ncclSum, comm, stream_));
    });
    counting().add(Kind::kAllReduce, values.bytes());
    return transfer;
  }

  Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check(in.dtype == DType::kF32 && in.count() == size() * out.count(), out, in, purpose);
    const Transfer transfer = start("reduce_scatter", in.bytes(), purpose, [&](ncclComm_t comm) {
      MHMOE_NCCL_CHECK(comm,
                       ncclReduceScatter(in.data, out.data, element_count(out), ncclFloat32, ncclSum, comm, stream_));
    });
    counting().add(Kind::kReduceScatter, in.bytes());
    return transfer;
  }

  Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check(out.count() == size() * in.count(), out, in, purpose);
    const Transfer transfer = start("all_gather", out.bytes(), purpose, [&](ncclComm_t comm) {
      MHMOE_NCCL_CHECK(comm, ncclAllGather(in.data, out.data, element_count(in), nccl_type(in), comm, stream_));
    });
    counting().add(Kind::kAllGather, out.bytes());
    return transfer;
  }

  Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) override {
    check(out.count() == in.count() && in.count() % size() == 0 && (out.data != in.data || in.count() == 0), out, in,
          purpose);
    const Transfer transfer = start("all_to_all", in.bytes(), purpose,
                                    [&](ncclComm_t comm) { exchange_blocks(out, in, size(), comm, stream_); });
    counting().add(Kind::kAllToAll, in.bytes());
    return transfer;
  }

  Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) override {
    check(rows.out.cols() == rows.in.cols(), rows.out, rows.in, purpose);
    const auto own = static_cast<size_t>(rank_);
    MHMOE_CHECK(rows.send_rows[own] == rows.receive_rows[own], "[{}] {} rows are sent to this rank and {} expected",
                purpose, rows.send_rows[own], rows.receive_rows[own]);
    const Transfer transfer =
        start("all_to_all_rows", -1, purpose, [&](ncclComm_t comm) { exchange_rows(rows, rank_, comm, stream_); });
    counting().add(rows);
    return transfer;
  }

  void wait(Transfer transfer) override {
    MHMOE_CHECK(transfer.number < next_ && next_ - transfer.number <= kSlots,
                "a wait for transfer {}, of which the last {} are kept, up to {}", transfer.number, kSlots, next_);
    MHMOE_CUDA_CHECK(cudaStreamWaitEvent(static_cast<cudaStream_t>(ctx_.compute_stream()),
                                         slots_[transfer.number % kSlots].end.get(), 0));
  }

  Traffic traffic(Kind kind) const override { return counter_.of(kind); }

 private:
  static constexpr uint64_t kSlots = 64;
  struct Slot {
    EventHandle end;
    std::string what;  // "all_reduce (gradients, bucket 3)"
    bool captured = false;
  };

  void finish() {
    try {
      peers_.wait(stream_);
    } catch (const std::exception& error) {
      log::error("{}", error.what());
      peers_.give_up();
    }
  }

  static void check(bool fits, const Tensor& out, const Tensor& in, std::string_view purpose) {
    MHMOE_CHECK(fits && out.dtype == in.dtype, "[{}] out {} and in {} do not fit together", purpose, out.describe(),
                in.describe());
  }

  // Marks and events are the only order between the streams, also in a capture, which the communication stream so
  // joins.
  template <class Call>
  Transfer start(const char* kind, int64_t bytes, std::string_view purpose, Call&& call) {
    Slot& slot = slots_[next_ % kSlots];
    slot.what = fmt::format("{} ({})", kind, purpose);
    slot.captured = is_captured(static_cast<cudaStream_t>(ctx_.compute_stream()));
    struct Entered {
      ~Entered() { monitor.leave(); }
      Monitor& monitor;
    };
    monitor_.enter(ranks_, kind, bytes, purpose);
    const Entered entered{monitor_};
    ctx_.wait(Stream::kCommunication, ctx_.mark(Stream::kCompute));
    const Transfer transfer{next_++};
    try {
      if (const ncclComm_t comm = handle_.get(); comm != nullptr) call(comm);
    } catch (const Error&) {
      peers_.check();  // a rank that was lost is the better reason
      throw;
    }
    MHMOE_CUDA_CHECK(cudaEventRecord(slot.end.get(), stream_));
    if (!slot.captured) peers_.check();
    return transfer;
  }

  // Of the call that was started last: what recorded work sends counts when it is played.
  TrafficCounter& counting() { return slots_[(next_ - 1) % kSlots].captured ? recorded_ : counter_; }
  TrafficCounter take_recorded() override { return std::exchange(recorded_, TrafficCounter(rank_, size())); }
  void add(const TrafficCounter& played) override { counter_.add(played); }

  std::string failure() override {
    std::string reason;
    if (handle_.aborted()) {
      reason = "the communicator was given up";
    } else if (handle_.asynchronous_error(&reason) == ncclSuccess) {
      return {};
    }
    return fmt::format("NCCL: rank {} of the ranks {} lost another one: {}; the oldest transfer that did not end: {}",
                       ranks_[static_cast<size_t>(rank_)], fmt::join(ranks_, ", "), reason, oldest_unfinished());
  }

  // Those of recorded work cannot be asked.
  std::string oldest_unfinished() const {
    for (uint64_t number = next_ - std::min(next_, kSlots); number < next_; ++number) {
      const Slot& slot = slots_[number % kSlots];
      if (!slot.captured && cudaEventQuery(slot.end.get()) == cudaErrorNotReady) return slot.what;
    }
    cudaGetLastError();
    return "none that was started one by one, so one of recorded work, or the last one";
  }

  void begin_abort() override { handle_.begin_abort(); }
  bool abort_ended() override { return handle_.abort_ended(); }

  Context& ctx_;
  Peers& peers_;
  Monitor& monitor_;
  cudaStream_t stream_;
  std::vector<int> ranks_;
  int rank_;
  TrafficCounter counter_, recorded_;
  int exceptions_;
  NcclHandle handle_;
  std::array<Slot, kSlots> slots_;
  uint64_t next_ = 0;
};

}  // namespace

std::unique_ptr<Communicator> create_communicator(Context& ctx, Job& job, std::span<const int> ranks) {
  const ncclUniqueId id = agree_on_id(job, ranks);
  if (ranks.size() == 1) return make_self_communicator(ctx, job.rank());
  const auto rank = static_cast<int>(std::ranges::find(ranks, job.rank()) - ranks.begin());
  Monitor& monitor = job.monitor();
  monitor.enter(ranks, "create_communicator", -1, "NCCL");
  struct Entered {
    ~Entered() { monitor.leave(); }
    Monitor& monitor;
  } const entered{monitor};
  return std::make_unique<NcclCommunicator>(ctx, job, std::vector<int>(ranks.begin(), ranks.end()), rank, id);
}

std::string nccl_version() {
  int version = 0;
  MHMOE_NCCL_CHECK(nullptr, ncclGetVersion(&version));
  return fmt::format("{}.{}.{}", version / 10000, version % 10000 / 100, version % 100);
}

}  // namespace mhmoe::cuda
