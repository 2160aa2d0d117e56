// Feed-forward networks on sub-tokens, each on the rows routed to it, as grouped products: those of a layer's E experts
// that are on this rank.
#pragma once

#include "comm/dispatch.h"
#include "nn/model_config.h"
#include "nn/pass.h"
#include "ops/grouped_matmul.h"

namespace mhmoe::nn {

class Experts {
 public:
  // width: of a sub-token. Names: PREFIX.{e}.{gate,up,down}.{weight,bias}, e counted over all ranks.
  Experts(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width);

  int64_t count() const { return up_->dims[0]; }
  comm::ExpertRange all() const { return {0, count()}; }
  int64_t pre_width() const { return ops::pre_activation_width(activation_, hidden_size_); }

  // out: compute [R, w], overwritten; rows: compute [R, w], of the experts `experts` alone, as `groups` says;
  // pre: compute [R, pre_width], overwritten, kept for backward.
  void forward(Pass& pass, const Tensor& out, const Tensor& pre, const Tensor& rows, const ops::RowGroups& groups,
               comm::ExpertRange experts) const;

  struct Backward {
    Tensor grad_rows;  // compute [R, w], overwritten
    Tensor grad_gate;  // f32 [S, k]; elements of routed assignments are overwritten, others left alone; or [R, 1]
    Tensor upstream;   // compute [R, w]: each row's gradient of the combined output, not yet scaled by its gate
    Tensor pre;        // as forward left it; overwritten
    Tensor rows;       // compute [R, w], as in forward
    Tensor gate;       // f32 [S, k]; or [R, 1] without row_assignment
    Tensor row_assignment = {};  // i32 [R]
    ops::RowGroups groups;
    comm::ExpertRange experts;
    int64_t source = 0;  // the rank of the expert-parallel group whose micro-batch the rows are of
  };
  void backward(Pass& pass, const Backward& args) const;

 private:
  static Tensor gradient_of(Pass& pass, const Backward& args, const Parameter& parameter);
  void backward_down(Pass& pass, const Backward& args, const Tensor& activated) const;

  ops::Activation activation_;
  int64_t hidden_size_;
  Parameter* up_;    // [E, pre_width, w]: gate and up of an expert lie together
  Parameter* down_;  // [E, w, m]
  Parameter* up_bias_ = nullptr;
  Parameter* down_bias_ = nullptr;
};

}  // namespace mhmoe::nn
