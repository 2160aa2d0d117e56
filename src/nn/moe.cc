#include "nn/moe.h"

#include "ops/routing.h"

namespace mhmoe::nn {

Moe::Moe(const ModelConfig& config, ParameterStore& parameters, const std::string& prefix, int64_t width,
         int64_t moe_index)
    : config_(config.moe),
      prefix_(prefix),
      moe_index_(moe_index),
      router_(config.moe, parameters, prefix + ".router", width),
      exchange_(config, parameters, prefix, width) {}

// Slots and buffer rows from the router's choices.
void Moe::assign(Pass& pass, Saved& saved, int64_t rows, const Tensor& load) const {
  const int64_t k = config_.top_k, experts = config_.experts;
  const int64_t capacity = expert_capacity(config_, pass.capacity_factor, rows);
  const int64_t buffer_rows = capacity > 0 ? experts * capacity : rows * k;
  saved.slot = pass.allocate("routing", DType::kI32, {rows, k});
  saved.row_of = pass.allocate("routing", DType::kI32, {rows, k});
  saved.row_assignment = pass.allocate("routing", DType::kI32, {buffer_rows});
  saved.groups.begin = pass.allocate("routing", DType::kI32, {experts});
  saved.groups.rows = pass.allocate("routing", DType::kI32, {experts});
  saved.groups.capacity = capacity;
  ops::assign_slots(pass.ctx, {.slot = saved.slot,
                               .row_of = saved.row_of,
                               .row_assignment = saved.row_assignment,
                               .begin = saved.groups.begin,
                               .rows = saved.groups.rows,
                               .load = load,
                               .expert_index = saved.routing.expert_index,
                               .capacity = capacity});
}

void Moe::observe(Pass& pass, const Saved& saved, const Tensor& balance_loss) const {
  pass.ctx.observe(balance_loss, "{}.balance_loss", prefix_);
  pass.ctx.observe(saved.routing.expert_index, "{}.expert_index", prefix_);
  pass.ctx.observe(saved.routing.gate_weight, "{}.gate_weight", prefix_);
  pass.ctx.observe(saved.slot, "{}.slot", prefix_);
}

Tensor Moe::gathered(Pass& pass, const Saved& saved, const Tensor& x) const {
  const Tensor rows = pass.allocate("expert rows", pass.compute, {saved.row_assignment.count(), x.cols()});
  ops::gather_rows(pass.ctx, {.out = rows, .x = x, .row_assignment = saved.row_assignment, .k = config_.top_k});
  return rows;
}

void Moe::route(Pass& pass, Saved& saved, const Tensor& z) const {
  const StepPartScope part(pass.ctx, StepPart::kDispatch);
  const Tensor balance_loss = pass.statistics.balance_loss.slice(moe_index_, 1);
  const Tensor load = pass.statistics.load.slice_rows(moe_index_, 1).view({config_.experts});
  router_.forward(pass, saved.routing, balance_loss, z);
  assign(pass, saved, z.rows(), load);
  const int64_t buffer_rows = saved.row_assignment.count();
  if (pass.experts_are_shared_out()) {
    exchange_.prepare(pass, saved.exchange, saved.groups, buffer_rows, z.cols());
  } else {
    saved.pre = pass.allocate("expert pre-activation", pass.compute, {buffer_rows, exchange_.experts().pre_width()});
  }
  observe(pass, saved, balance_loss);
}

void Moe::forward(Pass& pass, Saved& saved, const Tensor& out, const Tensor& z, const Tensor& addend,
                  const comm::Meanwhile& meanwhile) const {
  const StepPartScope part(pass.ctx, StepPart::kDispatch);
  const ArenaScope scope = pass.scope();
  const Experts& experts = exchange_.experts();
  const bool exchanged = pass.experts_are_shared_out();
  if (!exchanged && meanwhile) meanwhile();
  const Tensor rows = gathered(pass, saved, z);
  const Tensor results = pass.allocate("expert rows", pass.compute, {rows.rows(), z.cols()});
  if (exchanged) {
    exchange_.forward(pass, saved.exchange,
                      {.out = results,
                       .rows = rows,
                       .gate = saved.routing.gate_weight,
                       .row_assignment = saved.row_assignment,
                       .groups = saved.groups},
                      meanwhile);
  } else {
    experts.forward(pass, results, saved.pre, rows, saved.groups, experts.all());
  }
  const StepPartScope coming_back(pass.ctx, StepPart::kCombine);
  ops::combine_rows(
      pass.ctx,
      {.y = out, .rows = results, .row_of = saved.row_of, .gate = saved.routing.gate_weight, .addend = addend});
}

void Moe::backward(Pass& pass, const Saved& saved, const Tensor& grad_z, const Tensor& grad_out, const Tensor& z,
                   const Tensor& addend, const comm::Meanwhile& meanwhile) const {
  const StepPartScope part(pass.ctx, StepPart::kDispatch);
  if (!pass.experts_are_shared_out() && meanwhile) meanwhile();
  const ArenaScope scope = pass.scope();
  const int64_t buffer_rows = saved.row_assignment.count();
  const RowGradients grad = {
      .rows = pass.allocate("expert rows", pass.compute, {buffer_rows, z.cols()}),
      .gate = pass.allocate("routing gradient", DType::kF32, {z.rows(), config_.top_k}),
  };
  if (pass.experts_are_shared_out()) {
    backward_exchanged(pass, saved, grad, grad_out, meanwhile);
  } else {
    backward_here(pass, saved, grad, grad_out, z);
  }
  pass.ctx.observe(grad.gate, "grad.{}.gate_weight", prefix_);
  router_.backward(pass, saved.routing, grad_z, grad.gate, z, addend);
  const StepPartScope coming_back(pass.ctx, StepPart::kCombine);
  ops::combine_rows(pass.ctx, {.y = grad_z, .rows = grad.rows, .row_of = saved.row_of, .addend = grad_z});
}

void Moe::backward_here(Pass& pass, const Saved& saved, const RowGradients& grad, const Tensor& grad_out,
                        const Tensor& z) const {
  const ArenaScope scope = pass.scope();
  const Experts& experts = exchange_.experts();
  const Tensor upstream = gathered(pass, saved, grad_out);
  const Tensor rows = gathered(pass, saved, z);
  pass.ctx.fill_zero(grad.gate);  // the gate of a dropped assignment has no gradient
  experts.backward(pass, {.grad_rows = grad.rows,
                          .grad_gate = grad.gate,
                          .upstream = upstream,
                          .pre = saved.pre,
                          .rows = rows,
                          .gate = saved.routing.gate_weight,
                          .row_assignment = saved.row_assignment,
                          .groups = saved.groups,
                          .experts = experts.all()});
}

void Moe::backward_exchanged(Pass& pass, const Saved& saved, const RowGradients& grad, const Tensor& grad_out,
                             const comm::Meanwhile& meanwhile) const {
  const ArenaScope scope = pass.scope();
  const Tensor upstream = gathered(pass, saved, grad_out);
  const Tensor grad_row_gate = pass.allocate("routing gradient", DType::kF32, {upstream.rows(), 1});
  exchange_.backward(pass, saved.exchange, {.grad_rows = grad.rows, .grad_gate = grad_row_gate, .upstream = upstream},
                     meanwhile);
  // Zero where an assignment was dropped.
  const StepPartScope coming_back(pass.ctx, StepPart::kCombine);
  const int64_t assignments = saved.row_of.count();
  ops::combine_rows(
      pass.ctx,
      {.y = grad.gate.view({assignments, 1}), .rows = grad_row_gate, .row_of = saved.row_of.view({assignments, 1})});
}

}  // namespace mhmoe::nn
