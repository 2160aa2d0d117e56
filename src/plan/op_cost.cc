#include "plan/op_cost.h"

#include <algorithm>

namespace mhmoe::plan {
namespace {

template <class... Tensors>
double bytes_of(const Tensors&... tensors) {
  return (0.0 + ... + static_cast<double>(tensors.bytes()));
}

double product_flops(int64_t m, int64_t n, int64_t k) {
  return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
}

// "f32", or "bf16 -> f32" where they differ.
std::string conversion(DType in, DType out) {
  return in == out ? std::string(to_string(in)) : fmt::format("{} -> {}", to_string(in), to_string(out));
}

OpCost element_wise(const char* op, std::string shape, double bytes) {
  return {.op = op, .shape = std::move(shape), .bytes = bytes};
}

OpCost cost(const ops::EmbeddingForward& args) {
  return element_wise("embedding_forward", fmt::format("{} of {}", args.out.describe(), args.table.describe()),
                      bytes_of(args.out, args.tokens) +
                          static_cast<double>(args.out.count()) * static_cast<double>(size_of(args.table.dtype)));
}

OpCost cost(const ops::EmbeddingBackward& args) {
  const int64_t rows = std::min(args.tokens.count(), args.grad_table.rows());
  return element_wise("embedding_backward",
                      fmt::format("{} of {}", args.grad_out.describe(), args.grad_table.describe()),
                      bytes_of(args.grad_out, args.tokens) + 2 * bytes_of(args.grad_table.slice_rows(0, rows)));
}

OpCost cost(const ops::RmsNormForward& args) {
  return element_wise("rms_norm_forward",
                      fmt::format("{} x {} {}", args.x.rows(), args.x.cols(), conversion(DType::kF32, args.y.dtype)),
                      bytes_of(args.y, args.inv_rms, args.x, args.weight));
}

OpCost cost(const ops::RmsNormBackward& args) {
  return element_wise(
      "rms_norm_backward",
      fmt::format("{} x {} {}", args.x.rows(), args.x.cols(), conversion(args.grad_y.dtype, DType::kF32)),
      2 * bytes_of(args.grad_x, args.grad_weight) + bytes_of(args.grad_y, args.x, args.inv_rms, args.weight));
}

OpCost cost(const ops::Matmul& args) {
  const int64_t m = args.out.rows(), n = args.out.cols();
  const int64_t k = args.transpose_a ? args.a.rows() : args.a.cols();
  return {.op = "matmul",
          .shape = fmt::format("{} x {} x {} {}{} {}{}{}", m, n, k, args.transpose_a ? 't' : 'n',
                               args.transpose_b ? 't' : 'n', conversion(args.a.dtype, args.out.dtype),
                               args.bias.empty() ? "" : ", bias", args.addend.empty() ? "" : ", added"),
          .bytes = bytes_of(args.out, args.a, args.b, args.bias, args.addend),
          .flops = product_flops(m, n, k),
          .product = args.a.dtype};
}

OpCost cost(const ops::BiasBackward& args) {
  return element_wise("bias_backward", args.grad_out.describe(),
                      bytes_of(args.grad_out) + 2 * bytes_of(args.grad_bias));
}

OpCost cost(const ops::Rotary& args) {
  return element_wise("rotary", fmt::format("{}{}", args.qkv.describe(), args.inverse ? ", inverse" : ""),
                      2 * bytes_of(args.qkv) * 2 / 3);
}

// Pairs of query and key that meet, of all heads of all sequences. Masks that depend on data count as if all met.
double attention_pairs(const ops::AttentionShape& shape) {
  const auto length = static_cast<double>(shape.sequence_length);
  const double pairs = shape.mask == ops::AttentionMask::kCausal ? length * (length + 1) / 2 : length * length;
  return static_cast<double>(shape.batch * shape.heads) * pairs;
}

std::string attention_text(const ops::AttentionShape& shape, DType dtype) {
  return fmt::format("{} x {} tokens, {} heads of {}, {}{}", shape.batch, shape.sequence_length, shape.heads,
                     shape.head_size, to_string(dtype), shape.mask == ops::AttentionMask::kCausal ? ", causal" : "");
}

OpCost cost(const ops::AttentionForward& args) {
  return {.op = "attention_forward",
          .shape = attention_text(args.shape, args.qkv.dtype),
          .bytes = bytes_of(args.out, args.log_sum_exp, args.qkv),
          .flops = attention_pairs(args.shape) * 2 * product_flops(1, 1, args.shape.head_size),
          .product = args.qkv.dtype};
}

// Five products: scores again, since only their log-sum-exp was kept, and the gradients of values, scores, queries,
// keys.
OpCost cost(const ops::AttentionBackward& args) {
  return {.op = "attention_backward",
          .shape = attention_text(args.shape, args.qkv.dtype),
          .bytes = bytes_of(args.grad_qkv, args.grad_out, args.qkv, args.out, args.log_sum_exp),
          .flops = attention_pairs(args.shape) * 5 * product_flops(1, 1, args.shape.head_size),
          .product = args.qkv.dtype};
}

OpCost cost(const ops::AttentionCached& args) {
  const ops::AttentionShape& shape = args.shape;
  const auto sequences = static_cast<double>(shape.batch * shape.heads);
  const auto rows = static_cast<double>(shape.sequence_length), first = static_cast<double>(args.first_position);
  const double kept = 2 * sequences * (first + rows) * static_cast<double>(shape.head_size) *
                      static_cast<double>(size_of(args.qkv.dtype));
  return {.op = "attention_cached",
          .shape = fmt::format("{}, from position {}", attention_text(shape, args.qkv.dtype), args.first_position),
          .bytes = bytes_of(args.out, args.qkv) + kept,
          .flops = sequences * (rows * first + rows * (rows + 1) / 2) * 2 * product_flops(1, 1, shape.head_size),
          .product = args.qkv.dtype};
}

OpCost cost(const ops::ActivationForward& args) {
  return element_wise("activation_forward", args.pre.describe(), bytes_of(args.out, args.pre));
}

OpCost cost(const ops::ActivationBackward& args) {
  return element_wise("activation_backward",
                      fmt::format("{}{}", args.pre.describe(), args.gate.empty() ? "" : ", gated"),
                      bytes_of(args.grad_pre, args.grad_out, args.pre, args.scaled_out, args.gate, args.grad_gate,
                               args.row_assignment));
}

OpCost cost(const ops::RouterForward& args) {
  return element_wise(
      "router_forward", fmt::format("{}, top-{}", args.logits.describe(), args.expert_index.cols()),
      bytes_of(args.probabilities, args.expert_index, args.gate_weight, args.share, args.balance_loss, args.logits));
}

OpCost cost(const ops::RouterBackward& args) {
  return element_wise("router_backward",
                      fmt::format("{}, top-{}", args.probabilities.describe(), args.expert_index.cols()),
                      bytes_of(args.grad_logits, args.grad_gate, args.probabilities, args.expert_index, args.share));
}

OpCost cost(const ops::AssignSlots& args) {
  return element_wise(
      "assign_slots", fmt::format("{}, {} experts", args.expert_index.describe(), args.rows.count()),
      bytes_of(args.slot, args.row_of, args.row_assignment, args.begin, args.rows, args.load, args.expert_index));
}

OpCost cost(const ops::GatherRows& args) {
  return element_wise("gather_rows", fmt::format("{} from {}", args.out.describe(), args.x.describe()),
                      bytes_of(args.out, args.x, args.row_assignment));
}

OpCost cost(const ops::CombineRows& args) {
  return element_wise("combine_rows",
                      fmt::format("{} from {}{}{}", args.y.describe(), args.rows.describe(),
                                  args.gate.empty() ? "" : ", gated", args.addend.empty() ? "" : ", added"),
                      bytes_of(args.y, args.rows, args.row_of, args.gate, args.addend));
}

std::string grouped_text(const Tensor& weight, const Tensor& rows, const char* order, DType out) {
  return fmt::format("{} experts, {} rows, {} x {} {} {}", weight.dims[0], rows.rows(), weight.dims[1], weight.dims[2],
                     order, conversion(rows.dtype, out));
}

OpCost cost(const ops::GroupedMatmul& args) {
  return {.op = "grouped_matmul",
          .shape = grouped_text(args.weight, args.a, args.transpose_weight ? "nt" : "nn", args.out.dtype) +
                   (args.bias.empty() ? "" : ", bias") + (args.activated.empty() ? "" : ", activated"),
          .bytes = bytes_of(args.out, args.a, args.weight, args.bias, args.activated),
          .flops = product_flops(args.a.rows(), args.weight.dims[1], args.weight.dims[2]),
          .product = args.a.dtype};
}

OpCost cost(const ops::GroupedWeightGrad& args) {
  return {.op = "grouped_weight_grad",
          .shape = grouped_text(args.grad_weight, args.x, "tn", DType::kF32) + ", added",
          .bytes = 2 * bytes_of(args.grad_weight) + bytes_of(args.grad_out, args.x),
          .flops = product_flops(args.x.rows(), args.grad_weight.dims[1], args.grad_weight.dims[2]),
          .product = args.x.dtype};
}

OpCost cost(const ops::GroupedBiasBackward& args) {
  return element_wise("grouped_bias_backward",
                      fmt::format("{} experts, {}{}", args.grad_bias.rows(), args.grad_out.describe(),
                                  args.gate.empty() ? "" : ", gated"),
                      2 * bytes_of(args.grad_bias) +
                          bytes_of(args.grad_out, args.bias, args.gate, args.grad_gate, args.row_assignment));
}

OpCost cost(const ops::CrossEntropy& args) {
  return element_wise(
      "cross_entropy",
      fmt::format("{}{}", args.logits.describe(),
                  args.grad_logits.empty() ? "" : fmt::format(" -> {}", to_string(args.grad_logits.dtype))),
      bytes_of(args.loss, args.logits, args.targets, args.grad_logits));
}

OpCost cost(const ops::Cast& args) {
  return element_wise("cast", fmt::format("{} {}", args.out.count(), conversion(args.in.dtype, args.out.dtype)),
                      bytes_of(args.out, args.in));
}

OpCost cost(const ops::Add& args) {
  return element_wise("add",
                      fmt::format("{} {} + {} -> {}", args.out.count(), to_string(args.a.dtype),
                                  to_string(args.b.dtype), to_string(args.out.dtype)),
                      bytes_of(args.out, args.a, args.b));
}

OpCost cost(const ops::Reduce& args) {
  return element_wise("reduce", fmt::format("{}{}", args.in.describe(), args.squares ? ", squares" : ""),
                      bytes_of(args.in) + 2 * bytes_of(args.out));
}

OpCost cost(const ops::ClipScale& args) {
  return element_wise("clip_scale", "scalars", 2 * bytes_of(args.scalars) + bytes_of(args.sum_squares, args.loss));
}

OpCost cost(const ops::AdamUpdate& args) {
  return element_wise("adam_update",
                      fmt::format("{}{}", args.master.describe(), args.copy.empty() ? "" : ", bf16 copy"),
                      2 * bytes_of(args.master, args.moment1, args.moment2) + bytes_of(args.grad, args.copy));
}

}  // namespace

OpCost cost_of(const ops::OpCall& call) {
  return std::visit([](const auto* args) { return cost(*args); }, call.arguments);
}

OpCost cost_of_fill(const Tensor& dst) {
  return element_wise("fill_zero", dst.describe(), bytes_of(dst));
}

OpCost cost_of_copy(const Tensor& dst, const Tensor& src) {
  return element_wise("copy", dst.describe(), bytes_of(dst, src));
}

}  // namespace mhmoe::plan
