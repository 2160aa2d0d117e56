// Checks of ops' arguments, with messages that name the op, the argument and both shapes; and the dispatch line.
#pragma once

#include <initializer_list>
#include <string_view>

#include "device/context.h"
#include "device/last_op.h"
#include "ops/kernel_table.h"
#include "ops/op_call.h"

namespace mhmoe::ops {

// One argument of one op: Argument("rms_norm_forward", "y", args.y).shape({n, d}).floating().
class Argument {
 public:
  Argument(const Context& ctx, std::string_view op, std::string_view name, const Tensor& tensor);

  const Argument& shape(std::initializer_list<int64_t> dims) const;
  // Any shape with this many elements.
  const Argument& count(int64_t elements) const;
  // Any rank, seen as a matrix.
  const Argument& matrix(int64_t rows, int64_t cols) const;
  const Argument& dtype(DType expected) const;
  const Argument& floating() const;  // f32 or bf16
  const Argument& same_dtype(const Tensor& other) const;
  // It may be `other` itself, but not the same memory seen as another dtype.
  const Argument& may_be(const Tensor& other) const;

 private:
  std::string_view op_, name_;
  const Tensor& tensor_;
};

// The gates of routed rows, as ActivationBackward says.
void check_gates(const Context& ctx, std::string_view op, const Tensor& gate, const Tensor& grad_gate,
                 const Tensor& row_assignment, int64_t rows);

template <class Args>
void run(Context& ctx, Required<Args> KernelTable::*kernel, const Args& args) {
  ctx.watch([&](WorkObserver& observer) { observer.begin({&args}); },
            [&] {
              if (ctx.kernels() == nullptr) return;
              const Required<Args>& required = ctx.kernels()->*kernel;
              if (ctx.sizing()) {
                required.count_scratch(ctx, args);
              } else {
                set_last_op(type_name<Args>());
                required(ctx, args);
              }
            });
}

}  // namespace mhmoe::ops
