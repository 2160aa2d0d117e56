// Collectives over a group of ranks. Every call has a group-of-one meaning, so that callers have no branch.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/tensor.h"

namespace mhmoe {

// A collective that was started; wait() for it at most once, before 64 more have been started.
struct Transfer {
  uint64_t number = 0;
};

// Blocks of rows that travel between ranks: rank p of the group gets the send_rows[p] rows of `in` from send_begin[p]
// on, and its rows go to the receive_rows[p] rows of `out` from receive_begin[p] on. in, out: [rows, w] of equal dtype
// and w; all spans: [size], read before the call returns. Rows of `out` that nobody sends to are left alone.
struct RowExchange {
  Tensor out, in;
  std::span<const int64_t> send_begin, send_rows, receive_begin, receive_rows;
  bool equal = false;  // as all ranks know, each sends every rank as many rows
};

// Bytes that went to other ranks, and what became of them on this one.
struct Traffic {
  int64_t calls = 0;
  int64_t bytes = 0;                // sent to other ranks; what stays on this rank does not count
  int64_t bytes_between_nodes = 0;  // of these; counted by communicators that send in steps, 0 for others
  double waiting_seconds = 0;       // of the host; 0 where a device waits instead
};

// All ranks of the group enter every call in the same order, also with nothing to send. A call begins when what the
// compute stream was given before is done, runs on the communication stream, and returns at once (where there is a
// stream). Until wait(), its outputs may not be read and none of its tensors written. Tensors lie on the context's
// device, in state memory or in a CommunicationScope.
//
// purpose: names the call in messages ("layers.3.moe dispatch"); ranks that call different things, or disagree on
// sizes, end the job with Error(kInternal) that names both.
class MHMOE_API Communicator {
 public:
  enum class Kind : uint8_t { kAllReduce, kReduceScatter, kAllGather, kAllToAll };
  static constexpr int kKinds = 4;

  virtual ~Communicator();
  virtual int rank() const = 0;  // in the group
  virtual int size() const = 0;
  // Ranks of the job, in the group's order.
  virtual std::span<const int> ranks() const = 0;

  // values: f32, summed element by element over all ranks, in place; every rank gets the same bits.
  virtual Transfer all_reduce_sum(const Tensor& values, std::string_view purpose) = 0;
  // out[i] = sum over ranks of their in[rank() * n + i]. in: f32 [size * n]; out: f32 [n], may be that slice of `in`,
  // whose other elements are then undefined.
  virtual Transfer reduce_scatter_sum(const Tensor& out, const Tensor& in, std::string_view purpose) = 0;
  // out[p * n + i] = in[i] of rank p. Any dtype; in: [n], may be this rank's slice of out: [size * n].
  virtual Transfer all_gather(const Tensor& out, const Tensor& in, std::string_view purpose) = 0;
  // out[p * n + i] = in[rank() * n + i] of rank p. Any dtype; in, out: [size * n], not the same memory.
  virtual Transfer all_to_all(const Tensor& out, const Tensor& in, std::string_view purpose) = 0;
  virtual Transfer all_to_all_rows(const RowExchange& rows, std::string_view purpose) = 0;

  // What the compute stream is given from here on begins after the transfer's end.
  virtual void wait(Transfer transfer) = 0;

  // Since the communicator was made.
  virtual Traffic traffic(Kind kind) const = 0;
};

}  // namespace mhmoe
