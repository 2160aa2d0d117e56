// E feed-forward networks on sub-tokens, each on the rows routed to it, as grouped products.
#pragma once

#include "nn/model_config.h"
#include "nn/pass.h"
#include "ops/grouped_matmul.h"

namespace mhmoe::nn {

class Experts {
 public:
  // width: of a sub-token. Names: PREFIX.{e}.{gate,up,down}.{weight,bias}.
  Experts(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width);

  int64_t pre_width() const { return ops::pre_activation_width(activation_, hidden_size_); }

  // out: compute [R, w], overwritten; rows: compute [R, w];
  // pre: compute [R, pre_width], overwritten, kept for backward.
  void forward(Pass& pass, const Tensor& out, const Tensor& pre, const Tensor& rows,
               const ops::RowGroups& groups) const;

  struct Backward {
    Tensor grad_rows;       // compute [R, w], overwritten
    Tensor grad_gate;       // f32 [S, k]; elements of routed assignments are overwritten, others left alone
    Tensor upstream;        // compute [R, w]: each row's gradient of the combined output, not yet scaled by its gate
    Tensor pre;             // as forward left it; overwritten
    Tensor rows;            // compute [R, w], as in forward
    Tensor gate;            // f32 [S, k]
    Tensor row_assignment;  // i32 [R]
    ops::RowGroups groups;
  };
  void backward(Pass& pass, const Backward& args) const;

 private:
  void backward_down(Pass& pass, const Backward& args, const Tensor& activated) const;

  ops::Activation activation_;
  int64_t hidden_size_;
  Parameter* up_;    // [E, pre_width, w]: gate and up of an expert lie together
  Parameter* down_;  // [E, w, m]
  Parameter* up_bias_ = nullptr;
  Parameter* down_bias_ = nullptr;
};

}  // namespace mhmoe::nn
