#include "nn/expert_exchange.h"

#include <optional>
#include <utility>

#include "ops/routing.h"

namespace mhmoe::nn {

using comm::Dispatch;
using comm::ExpertRange;
using comm::RowPlaces;

namespace {

// The rows that one rank sent to some of the experts here.
struct Piece {
  int64_t begin, rows;
  ops::RowGroups groups;

  Tensor of(const Tensor& tensor) const { return tensor.slice_rows(begin, rows); }
};

// f(piece, source): one rank's rows after another's, so that each rank's share of a weight gradient is a product of its
// own and they add up in the order of ranks. Without a capacity there may be none.
template <class F>
void for_each_piece(const ExpertExchange::Saved& saved, ExpertRange experts, F&& f) {
  const int64_t ranks = saved.counts.dims[0], local = saved.counts.dims[1];
  for (int64_t source = 0; source < ranks; ++source) {
    const int64_t first = source * local + experts.begin;
    const int64_t* place = saved.places.away.data() + first;
    Piece piece{.begin = place[0], .rows = place[experts.count] - place[0], .groups = {}};
    if (piece.rows == 0) continue;
    // With a capacity places are multiples of it, counted from a piece's own beginning.
    piece.groups = {.begin = saved.begin.slice(saved.capacity > 0 ? 0 : first, experts.count),
                    .rows = saved.counts.slice(first, experts.count),
                    .capacity = saved.capacity};
    f(piece, source);
  }
}

// First rows counted from the beginning of the rank's rows for the same chunk of experts.
std::vector<int32_t> begins_in_chunks(const RowPlaces& places, int64_t chunks) {
  std::vector<int32_t> begin;
  for (size_t first = 0; first + 1 < places.away.size(); first += static_cast<size_t>(places.local_experts)) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const ExpertRange experts = comm::chunk_of(places.local_experts, chunk, chunks);
      const int64_t* place = places.away.data() + first + experts.begin;
      for (int64_t e = 0; e < experts.count; ++e) begin.push_back(static_cast<int32_t>(place[e] - place[0]));
    }
  }
  return begin;
}

}  // namespace

ExpertExchange::ExpertExchange(const ModelConfig& config, ParameterStore& parameters, const std::string& layer,
                               int64_t width)
    : experts_(config, parameters, layer + ".experts", width), layer_(layer) {}

Dispatch ExpertExchange::dispatch(Pass& pass, const RowPlaces& places) const {
  return {pass.ctx, *pass.experts, places, layer_, pass.verify_transfers};
}

void ExpertExchange::prepare(Pass& pass, Saved& saved, const ops::RowGroups& groups, int64_t rows,
                             int64_t width) const {
  const int64_t experts = groups.rows.count(), local = experts_.count(), ranks = pass.experts->size();
  MHMOE_CHECK(local * ranks == experts, "[{}] {} experts here, of {} on {} ranks", layer_, local, experts, ranks);
  saved.capacity = groups.capacity;
  saved.counts = pass.allocate("routing", DType::kI32, {ranks, local});
  if (groups.capacity > 0) {
    saved.places = RowPlaces::equal_shares(experts, local, groups.capacity);
    saved.begin = groups.begin.slice(0, local);
  } else {
    place_by_counts(pass, saved, groups, rows);
  }
  const int64_t received = saved.places.away_rows();
  saved.rows = pass.allocate("received expert rows", pass.compute, {received, width});
  saved.gate = pass.gradients != nullptr ? pass.allocate("routing", DType::kF32, {received, 1}) : Tensor{};
  saved.pre = pass.allocate("expert pre-activation", pass.compute, {received, experts_.pre_width()});
}

// counts: of one row for every expert.
Dispatch::Travel ExpertExchange::send_counts(Dispatch& counts, const Saved& saved, const ops::RowGroups& groups) {
  const int64_t experts = groups.rows.count();
  return counts.to_experts(saved.counts.view({experts, 1}), groups.rows.view({experts, 1}), {0, saved.counts.dims[1]},
                           "row counts");
}

// Without a capacity the host learns how many rows come and go, and waits for that. A sizing pass takes as many to
// every expert; a layer that gets more lets the arena grow.
void ExpertExchange::place_by_counts(Pass& pass, Saved& saved, const ops::RowGroups& groups, int64_t rows) const {
  const int64_t experts = groups.rows.count(), local = experts_.count();
  saved.begin = pass.allocate("routing", DType::kI32, {pass.experts->size(), local});
  {
    const CommunicationScope scope(pass.ctx);
    const RowPlaces one_each = RowPlaces::equal_shares(experts, local, 1);
    Dispatch counts = dispatch(pass, one_each);
    counts.wait(send_counts(counts, saved, groups));
  }
  std::vector<int32_t> home(static_cast<size_t>(experts)), away(static_cast<size_t>(experts));
  if (pass.ctx.sizing()) {
    for (int64_t e = 0; e < experts; ++e) {
      home[e] = away[e] = static_cast<int32_t>(rows * (e + 1) / experts - rows * e / experts);
    }
  } else {
    pass.ctx.download(home.data(), groups.rows);
    pass.ctx.download(away.data(), saved.counts);
  }
  saved.places = RowPlaces::of_counts(local, home, away);
  pass.ctx.upload(saved.begin, begins_in_chunks(saved.places, std::min(pass.overlap_chunks, local)).data());
}

void ExpertExchange::forward(Pass& pass, Saved& saved, const Forward& args, const comm::Meanwhile& meanwhile) const {
  const CommunicationScope scope(pass.ctx);
  const RowPlaces one_each = RowPlaces::equal_shares(args.groups.rows.count(), experts_.count(), 1);
  Dispatch counts = dispatch(pass, one_each);
  std::optional<Dispatch::Travel> coming_counts;
  if (saved.capacity > 0) coming_counts = send_counts(counts, saved, args.groups);
  const Tensor results = pass.allocate("expert rows", pass.compute, {saved.rows.rows(), saved.rows.cols()});
  Dispatch rows = dispatch(pass, saved.places);
  std::optional<Dispatch::Travel> gates;
  if (!saved.gate.empty()) {
    const Tensor gate = pass.allocate("routing", DType::kF32, {args.rows.rows(), 1});
    ops::gather_rows(
        pass.ctx,
        {.out = gate, .x = args.gate.view({args.gate.count(), 1}), .row_assignment = args.row_assignment, .k = 1});
    gates = rows.to_experts(saved.gate, gate, saved.places.all(), "gates");
  }
  rows.round_trip({.away = saved.rows,
                   .home = args.rows,
                   .results_away = results,
                   .results_home = args.out,
                   .there = "dispatch",
                   .back = "combine"},
                  pass.overlap_chunks, meanwhile, [&](ExpertRange experts) {
                    if (coming_counts) counts.wait(*std::exchange(coming_counts, std::nullopt));
                    for_each_piece(saved, experts, [&](const Piece& piece, int64_t /*source*/) {
                      experts_.forward(pass, piece.of(results), piece.of(saved.pre), piece.of(saved.rows), piece.groups,
                                       experts);
                    });
                  });
  if (gates) rows.wait(*gates);
}

void ExpertExchange::backward(Pass& pass, const Saved& saved, const Backward& args,
                              const comm::Meanwhile& meanwhile) const {
  const CommunicationScope scope(pass.ctx);
  const int64_t received = saved.rows.rows(), width = saved.rows.cols();
  const Tensor upstream = pass.allocate("expert rows", pass.compute, {received, width});
  const Tensor grad_rows = pass.allocate("expert rows", pass.compute, {received, width});
  const Tensor grad_gate = pass.allocate("routing gradient", DType::kF32, {received, 1});
  Dispatch rows = dispatch(pass, saved.places);
  rows.round_trip({.away = upstream,
                   .home = args.upstream,
                   .results_away = grad_rows,
                   .results_home = args.grad_rows,
                   .there = "dispatch of gradients",
                   .back = "combine of gradients"},
                  pass.overlap_chunks, meanwhile, [&](ExpertRange experts) {
                    for_each_piece(saved, experts, [&](const Piece& piece, int64_t source) {
                      experts_.backward(pass, {.grad_rows = piece.of(grad_rows),
                                               .grad_gate = piece.of(grad_gate),
                                               .upstream = piece.of(upstream),
                                               .pre = piece.of(saved.pre),
                                               .rows = piece.of(saved.rows),
                                               .gate = piece.of(saved.gate),
                                               .groups = piece.groups,
                                               .experts = experts,
                                               .source = source});
                    });
                  });
  rows.wait(rows.to_home(args.grad_gate, grad_gate, saved.places.all(), "gate gradients"));
}

}  // namespace mhmoe::nn
