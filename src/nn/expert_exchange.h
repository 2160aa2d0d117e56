// Experts that the ranks of an expert-parallel group share out among themselves: rows travel to the rank that holds
// their expert, are computed there, and their results travel back. To a layer it looks as if all experts were here.
#pragma once

#include "comm/dispatch.h"
#include "nn/experts.h"

namespace mhmoe::nn {

class ExpertExchange {
 public:
  // layer: as messages name it. Parameters are those of the experts on this rank.
  ExpertExchange(const ModelConfig& config, ParameterStore& parameters, const std::string& layer, int64_t width);

  const Experts& experts() const { return experts_; }

  // What stays on this rank of the rows that others sent to it, G of them, from P ranks. Unlike a rank alone, which
  // gathers a layer's inputs again in backward, it keeps them: sending them twice would cost a quarter more traffic.
  struct Saved {
    comm::RowPlaces places;
    int64_t capacity = 0;
    Tensor counts;  // i32 [P, local experts]: rows from each rank for each expert
    Tensor begin;   // i32: first row of each expert, in its chunk of one rank's rows; [P, local experts], with a
                    // capacity [local experts], the same for every rank
    Tensor rows;    // compute [G, w]
    Tensor gate;    // f32 [G, 1]; absent where no backward follows
    Tensor pre;     // compute [G, pre_width]
  };

  // Allocates what is kept. groups: of the rows of this rank for all experts; rows: how many there are.
  void prepare(Pass& pass, Saved& saved, const ops::RowGroups& groups, int64_t rows, int64_t width) const;

  // out: compute [R, w], overwritten; rows: compute [R, w], both by expert; groups: as in prepare().
  // gate: f32 [S, k], row_assignment: i32 [R], as Moe has them.
  struct Forward {
    Tensor out, rows, gate, row_assignment;
    ops::RowGroups groups;
  };
  void forward(Pass& pass, Saved& saved, const Forward& args, const comm::Meanwhile& meanwhile) const;

  // grad_rows: compute [R, w]; grad_gate: f32 [R, 1]; both overwritten, in rows that hold no assignment with anything.
  // upstream: compute [R, w], the gradient of each row's combined output, not yet scaled by its gate.
  struct Backward {
    Tensor grad_rows, grad_gate, upstream;
  };
  void backward(Pass& pass, const Saved& saved, const Backward& args, const comm::Meanwhile& meanwhile) const;

 private:
  comm::Dispatch dispatch(Pass& pass, const comm::RowPlaces& places) const;
  static comm::Dispatch::Travel send_counts(comm::Dispatch& counts, const Saved& saved, const ops::RowGroups& groups);
  void place_by_counts(Pass& pass, Saved& saved, const ops::RowGroups& groups, int64_t rows) const;

  Experts experts_;
  std::string layer_;
};

}  // namespace mhmoe::nn
