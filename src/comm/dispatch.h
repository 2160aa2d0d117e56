// Routed rows on their way to the ranks that hold their experts, and what becomes of them on the way back.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "device/communicator.h"
#include "device/context.h"

namespace mhmoe::comm {

// Work that needs nothing of what travels, for the time until it arrives; may be empty.
using Meanwhile = std::function<void()>;

// Experts of one rank, numbered from 0.
struct ExpertRange {
  int64_t begin, count;
};
// Number `chunk` of `chunks` groups of about equal size.
ExpertRange chunk_of(int64_t local_experts, int64_t chunk, int64_t chunks);

// Where a layer's rows lie in the buffers of both ends. At home, on the rank they come from, they are ordered by
// expert, over all ranks' experts; on the expert side by the rank they come from and there by that rank's part of the
// experts. So number p * local_experts + e is at home expert e of rank p, and on the expert side what rank p sends to
// expert e.
struct RowPlaces {
  int64_t local_experts = 0;
  std::vector<int64_t> home, away;  // first row of each number; then how many rows there are
  bool equal = false;               // all numbers have as many rows on all ranks

  // rows_each for every expert from every rank.
  static RowPlaces equal_shares(int64_t experts, int64_t local_experts, int64_t rows_each);
  // Row counts of each number.
  static RowPlaces of_counts(int64_t local_experts, const std::vector<int32_t>& home, const std::vector<int32_t>& away);
  int64_t home_rows() const { return home.back(); }
  int64_t away_rows() const { return away.back(); }
  ExpertRange all() const { return {0, local_experts}; }
};

// All ranks of the group make the same calls in the same order. Tensors are [rows, w] and live in a CommunicationScope
// or outlive it; the dispatch lives within one too.
class Dispatch {
 public:
  // layer: as messages name it. verify: a checksum travels with every block of rows, and wait() throws
  // Error(kCorruption) where one does not fit; the host waits for the device. What is passed must outlive this.
  Dispatch(Context& ctx, Communicator& group, const RowPlaces& places, std::string_view layer, bool verify)
      : ctx_(ctx), group_(group), places_(places), layer_(layer), verify_(verify) {}

  // Rows that were given away and not yet waited for.
  struct Travel {
    const char* what;
    Tensor out;
    const std::vector<int64_t>* to;  // RowPlaces of `out`
    ExpertRange experts;
    Transfer rows;
    Transfer checksums = {};
    Tensor received_checksums = {};
  };
  // Rows of these experts of every rank: from home to the expert side, and back. what: literal, for messages.
  Travel to_experts(const Tensor& away, const Tensor& home, ExpertRange experts, const char* what) {
    return start(away, places_.away, home, places_.home, experts, what);
  }
  Travel to_home(const Tensor& home, const Tensor& away, ExpertRange experts, const char* what) {
    return start(home, places_.home, away, places_.away, experts, what);
  }
  void wait(const Travel& travel);

  struct RoundTrip {
    Tensor away, home;                  // what travels to the experts
    Tensor results_away, results_home;  // what travels back
    const char *there, *back;
  };
  // compute(experts) makes results_away of `away` for these experts' rows. While it works on one of `chunks` groups of
  // experts, the next one's rows and the results of those before are under way; `meanwhile` comes before the first.
  template <class Compute>
  void round_trip(const RoundTrip& trip, int64_t chunks, const Meanwhile& meanwhile, Compute&& compute);

 private:
  Travel start(const Tensor& out, const std::vector<int64_t>& to, const Tensor& in, const std::vector<int64_t>& from,
               ExpertRange experts, const char* what);
  void send_checksums(Travel& travel, const Tensor& in, const std::vector<int64_t>& from);
  void compare_checksums(const Travel& travel);
  std::string purpose(const char* what) const { return layer_ + " " + what; }

  Context& ctx_;
  Communicator& group_;
  const RowPlaces& places_;
  std::string layer_;
  bool verify_;
};

template <class Compute>
void Dispatch::round_trip(const RoundTrip& trip, int64_t chunks, const Meanwhile& meanwhile, Compute&& compute) {
  constexpr size_t kMostReturning = 4;  // a communicator knows the last 64 transfers only
  chunks = std::min(chunks, places_.local_experts);
  const auto send = [&](int64_t chunk) {
    return to_experts(trip.away, trip.home, chunk_of(places_.local_experts, chunk, chunks), trip.there);
  };
  std::vector<Travel> returning;
  Travel coming = send(0);
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const Travel current = coming;
    if (chunk + 1 < chunks) coming = send(chunk + 1);
    if (chunk == 0 && meanwhile) meanwhile();
    wait(current);
    compute(current.experts);
    if (returning.size() >= kMostReturning) wait(returning[returning.size() - kMostReturning]);
    returning.push_back(to_home(trip.results_home, trip.results_away, current.experts, trip.back));
  }
  const size_t waited = returning.size() > kMostReturning ? returning.size() - kMostReturning : 0;
  for (size_t i = waited; i < returning.size(); ++i) wait(returning[i]);
}

}  // namespace mhmoe::comm
