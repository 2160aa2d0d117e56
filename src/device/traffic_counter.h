// Counts what communicators send, in one way for all of them.
#pragma once

#include <array>
#include <cstdint>

#include "device/communicator.h"

namespace mhmoe {

// Bytes that one rank sends to others. Reductions and gathers count as around a ring: every element leaves a rank once
// for each other rank's share, (P - 1) / P of the whole vector a pass, of which an all-reduce takes two.
class TrafficCounter {
 public:
  TrafficCounter(int rank, int size) : rank_(rank), size_(size) {}

  // whole: of the vector that all ranks' shares make up, for kAllReduce the values themselves.
  void add(Communicator::Kind kind, size_t whole_bytes) {
    const auto share = static_cast<int64_t>(whole_bytes) * (size_ - 1) / size_;
    add_bytes(kind, kind == Communicator::Kind::kAllReduce ? 2 * share : share);
  }
  void add(const RowExchange& rows) {
    int64_t sent = 0;
    for (int p = 0; p < size_; ++p) sent += p == rank_ ? 0 : rows.send_rows[static_cast<size_t>(p)];
    add_bytes(Communicator::Kind::kAllToAll, sent * rows.in.cols() * static_cast<int64_t>(size_of(rows.in.dtype)));
  }
  // What recorded work counted, when it is played.
  void add(const TrafficCounter& played) {
    for (size_t kind = 0; kind < traffic_.size(); ++kind) {
      traffic_[kind].calls += played.traffic_[kind].calls;
      traffic_[kind].bytes += played.traffic_[kind].bytes;
    }
  }
  void add_waiting(Communicator::Kind kind, double seconds) { of(kind).waiting_seconds += seconds; }
  const Traffic& of(Communicator::Kind kind) const { return traffic_[static_cast<size_t>(kind)]; }

 private:
  Traffic& of(Communicator::Kind kind) { return traffic_[static_cast<size_t>(kind)]; }
  void add_bytes(Communicator::Kind kind, int64_t bytes) {
    ++of(kind).calls;
    of(kind).bytes += bytes;
  }

  int rank_, size_;
  std::array<Traffic, Communicator::kKinds> traffic_{};
};

}  // namespace mhmoe
