#include "ops/check.h"

#include <algorithm>

namespace mhmoe::ops {

Argument::Argument(const Context& ctx, std::string_view op, std::string_view name, const Tensor& tensor)
    : op_(op), name_(name), tensor_(tensor) {
  MHMOE_CHECK(!tensor.empty(), "[{}] {} is missing", op, name);
  MHMOE_CHECK(tensor.device == ctx.kind(), "[{}] {} lies on {}, the op runs on {}", op, name, to_string(tensor.device),
              to_string(ctx.kind()));
}

const Argument& Argument::shape(std::initializer_list<int64_t> dims) const {
  MHMOE_CHECK(std::ranges::equal(tensor_.shape(), dims), "[{}] {} is {}, expected the shape of {}", op_, name_,
              tensor_.describe(), Tensor(nullptr, tensor_.dtype, dims).describe());
  return *this;
}

const Argument& Argument::count(int64_t elements) const {
  MHMOE_CHECK(tensor_.count() == elements, "[{}] {} is {}, expected {} elements", op_, name_, tensor_.describe(),
              elements);
  return *this;
}

const Argument& Argument::matrix(int64_t rows, int64_t cols) const {
  MHMOE_CHECK(tensor_.rows() == rows && tensor_.cols() == cols, "[{}] {} is {}, expected a matrix of {} x {}", op_,
              name_, tensor_.describe(), rows, cols);
  return *this;
}

const Argument& Argument::dtype(DType expected) const {
  MHMOE_CHECK(tensor_.dtype == expected, "[{}] {} is {}, expected {}", op_, name_, tensor_.describe(),
              to_string(expected));
  return *this;
}

const Argument& Argument::floating() const {
  MHMOE_CHECK(tensor_.dtype == DType::kF32 || tensor_.dtype == DType::kBF16, "[{}] {} is {}, expected f32 or bf16", op_,
              name_, tensor_.describe());
  return *this;
}

const Argument& Argument::same_dtype(const Tensor& other) const {
  MHMOE_CHECK(tensor_.dtype == other.dtype, "[{}] {} is {}, expected the dtype of {}", op_, name_, tensor_.describe(),
              other.describe());
  return *this;
}

const Argument& Argument::may_be(const Tensor& other) const {
  if (tensor_.data == other.data && tensor_.count() > 0) same_dtype(other);
  return *this;
}

void check_gates(const Context& ctx, std::string_view op, const Tensor& gate, const Tensor& grad_gate,
                 const Tensor& row_assignment, int64_t rows) {
  const Argument checked(ctx, op, "gate", gate);
  checked.dtype(DType::kF32);
  if (row_assignment.empty()) {
    checked.count(rows);
  } else {
    Argument(ctx, op, "row_assignment", row_assignment).shape({rows}).dtype(DType::kI32);
  }
  Argument(ctx, op, "grad_gate", grad_gate).count(gate.count()).dtype(DType::kF32);
}

}  // namespace mhmoe::ops
