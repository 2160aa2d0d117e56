#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

using ops::Activation;

// The functions of one unit. A gated one takes two pre-activations, `a` through the non-linearity and `b` as a factor;
// a plain one ignores b.
struct Unit {
  float out, grad_a, grad_b;
};

struct Swiglu {
  static constexpr bool kGated = true;
  static float out(float a, float b) { return a * sigmoid(a) * b; }
  static Unit with_gradients(float a, float b) {
    const float s = sigmoid(a), silu = a * s;
    return {silu * b, b * (s + silu * (1 - s)), silu};
  }
};

struct Relu {
  static constexpr bool kGated = false;
  static float out(float a, float /*b*/) { return a > 0 ? a : 0; }
  static Unit with_gradients(float a, float /*b*/) { return {a > 0 ? a : 0, a > 0 ? 1.0f : 0.0f, 0}; }
};

struct Gelu {
  static constexpr bool kGated = false;
  static float normal_cdf(float a) { return 0.5f * (1 + fast_erf(a * 0.707106781f)); }
  static float out(float a, float /*b*/) { return a * normal_cdf(a); }
  static Unit with_gradients(float a, float /*b*/) {
    const float cdf = normal_cdf(a);
    const float density = 0.398942280f * fast_exp(-0.5f * a * a);
    return {a * cdf, cdf + a * density, 0};
  }
};

// f(T{}, Function{}): the element type and one of the structs above.
template <class F>
void dispatch(DType dtype, Activation kind, F&& f) {
  dispatch_float(dtype, [&](auto zero) {
    switch (kind) {
      case Activation::kSwiglu:
        return f(zero, Swiglu{});
      case Activation::kRelu:
        return f(zero, Relu{});
      case Activation::kGelu:
        return f(zero, Gelu{});
    }
  });
}

template <class T, class Function>
void forward_row(T* out, const T* pre, int64_t hidden) {
  const T* factor = Function::kGated ? pre + hidden : pre;
#pragma omp simd
  for (int64_t c = 0; c < hidden; ++c) {
    store_value(out[c], Function::out(static_cast<float>(pre[c]), static_cast<float>(factor[c])));
  }
}

template <class T>
struct BackwardRow {
  T *grad_pre, *scaled_out;
  const T *grad_out, *pre;
};

// Returns <out, grad_out>.
template <class T, class Function, bool kScaledOut>
float backward_row(const BackwardRow<T>& row, float scale, int64_t hidden) {
  T* const grad_pre = row.grad_pre;
  [[maybe_unused]] T* const scaled_out = row.scaled_out;
  const T *grad_out = row.grad_out, *pre = row.pre;
  constexpr bool kGated = Function::kGated;
  float dot = 0;
#pragma omp simd reduction(+ : dot)
  for (int64_t c = 0; c < hidden; ++c) {
    const float gradient = static_cast<float>(grad_out[c]);
    const float factor = kGated ? static_cast<float>(pre[hidden + c]) : 0.0f;
    const Unit unit = Function::with_gradients(static_cast<float>(pre[c]), factor);
    dot += unit.out * gradient;
    const float scaled = scale * gradient;
    store_value(grad_pre[c], scaled * unit.grad_a);
    if constexpr (kGated) store_value(grad_pre[hidden + c], scaled * unit.grad_b);
    if constexpr (kScaledOut) store_value(scaled_out[c], scale * unit.out);
  }
  return dot;
}

template <class T, class Function, bool kScaledOut>
void backward_rows(const ops::ActivationBackward& args, int64_t begin, int64_t end) {
  const int64_t hidden = args.grad_out.cols(), width = args.pre.cols();
  const bool routed = !args.gate.empty();
  for (int64_t r = begin; r < end; ++r) {
    BackwardRow<T> row{args.grad_pre.as<T>() + r * width, nullptr, args.grad_out.as<T>() + r * hidden,
                       args.pre.as<T>() + r * width};
    if constexpr (kScaledOut) row.scaled_out = args.scaled_out.as<T>() + r * hidden;
    if (!routed) {
      backward_row<T, Function, kScaledOut>(row, 1.0f, hidden);
      continue;
    }
    const int64_t at = args.row_assignment.empty() ? r : args.row_assignment.as<int32_t>()[r];
    if (at < 0) {
      std::fill_n(row.grad_pre, width, T{});
      if constexpr (kScaledOut) std::fill_n(row.scaled_out, hidden, T{});
      continue;
    }
    const float scale = args.gate.as<float>()[at];
    args.grad_gate.as<float>()[at] = backward_row<T, Function, kScaledOut>(row, scale, hidden);
  }
}

}  // namespace

void activation_forward(Context& /*ctx*/, const ops::ActivationForward& args) {
  const int64_t hidden = args.out.cols(), width = args.pre.cols();
  dispatch(args.out.dtype, args.kind, [&](auto zero, auto function) {
    using T = decltype(zero);
    parallel_for(args.out.rows(), row_grain(width), [&](int64_t begin, int64_t end, int /*thread*/) {
      for (int64_t r = begin; r < end; ++r) {
        forward_row<T, decltype(function)>(args.out.as<T>() + r * hidden, args.pre.as<T>() + r * width, hidden);
      }
    });
  });
}

void activation_backward(Context& /*ctx*/, const ops::ActivationBackward& args) {
  dispatch(args.pre.dtype, args.kind, [&](auto zero, auto function) {
    using T = decltype(zero);
    using Function = decltype(function);
    parallel_for(args.pre.rows(), row_grain(args.pre.cols()), [&](int64_t begin, int64_t end, int /*thread*/) {
      if (args.scaled_out.empty()) {
        backward_rows<T, Function, false>(args, begin, end);
      } else {
        backward_rows<T, Function, true>(args, begin, end);
      }
    });
  });
}

}  // namespace mhmoe::cpu
