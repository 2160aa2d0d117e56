#include "cpu/product.h"

#include <array>
#include <functional>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
#include <optional>
#include <unordered_map>

#include "core/parallel_for.h"
#include "cpu/scratch.h"

namespace mhmoe::cpu {
namespace {

using dnnl::memory;

const dnnl::engine& engine() {
  static const dnnl::engine kEngine(dnnl::engine::kind::cpu, 0);
  return kEngine;
}

memory::data_type data_type(DType dtype) {
  MHMOE_CHECK(dtype == DType::kF32 || dtype == DType::kBF16, "no matrix product of {}", to_string(dtype));
  return dtype == DType::kF32 ? memory::data_type::f32 : memory::data_type::bf16;
}

memory::desc describe(int64_t rows, int64_t cols, int64_t leading, bool transpose, DType dtype) {
  const auto size = [](int64_t n) { return n == kAnySize ? DNNL_RUNTIME_DIM_VAL : n; };
  const memory::dims strides = transpose ? memory::dims{1, leading} : memory::dims{leading, 1};
  return {{size(rows), size(cols)}, data_type(dtype), strides};
}

struct Descriptions {
  explicit Descriptions(const ProductKind& kind)
      : a(describe(kind.m, kind.k, kind.lda, kind.transpose_a, kind.in)),
        b(describe(kind.k, kind.n, kind.ldb, kind.transpose_b, kind.in)),
        out(describe(kind.m, kind.n, kind.ldc, false, kind.out)),
        bias({1, kind.n}, memory::data_type::f32, memory::dims{kind.n, 1}) {}
  memory::desc a, b, out, bias;
};

// oneDNN chooses how to divide a product when it is made, for so many threads.
struct MadeFor {
  ProductKind kind;
  int threads;

  bool operator==(const MadeFor&) const = default;
};

struct HashMadeFor {
  size_t operator()(const MadeFor& made_for) const {
    const ProductKind& kind = made_for.kind;
    auto hash = static_cast<size_t>(made_for.threads);
    const auto add = [&](int64_t value) {
      hash ^= std::hash<int64_t>{}(value) + 0x9e3779b97f4a7c15u + (hash << 6) + (hash >> 2);
    };
    for (const int64_t size : {kind.m, kind.n, kind.k, kind.lda, kind.ldb, kind.ldc}) add(size);
    add(kind.transpose_a | kind.transpose_b << 1 | kind.bias << 2 | kind.accumulate << 3 |
        static_cast<int>(kind.in) << 4 | static_cast<int>(kind.out) << 8);
    return hash;
  }
};

}  // namespace

bool native_bf16() {
  constexpr auto kNeeded = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_bf16);
  static const bool kNative = (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & kNeeded) == kNeeded;
  return kNative;
}

void sgemm(char op_a, char op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
           const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  const auto status = dnnl_sgemm(op_a, op_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  MHMOE_CHECK(status == dnnl_success, "oneDNN's sgemm failed with status {}", static_cast<int>(status));
}

struct Product::Primitive {
  explicit Primitive(const ProductKind& kind) : descriptions(kind) {
    dnnl::primitive_attr attributes;
    // The library's own scratchpad belongs to the thread that made the primitive; ours belongs to the one that runs it.
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
    if (kind.accumulate) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    const auto& d = descriptions;
    const auto operation =
        kind.bias ? dnnl::matmul::desc(d.a, d.b, d.bias, d.out) : dnnl::matmul::desc(d.a, d.b, d.out);
    const dnnl::matmul::primitive_desc chosen(operation, attributes, engine());
    scratchpad = chosen.scratchpad_desc();
    primitive = dnnl::matmul(chosen);
  }

  Descriptions descriptions;
  memory::desc scratchpad;
  dnnl::matmul primitive;
};

const Product& Product::of(const ProductKind& kind) {
  static std::mutex mutex;
  static std::unordered_map<MadeFor, Product, HashMadeFor> products;
  const std::lock_guard lock(mutex);
  return products.try_emplace({kind, thread_count()}, kind).first->second;
}

Product::Product(const ProductKind& kind) : kind_(kind) {
  try {
    primitive_ = std::make_unique<Primitive>(kind);
  } catch (const dnnl::error& error) {
    fail(ExitCode::kInternal, "oneDNN has no product [{}, {}] x [{}, {}] of {}: {}", kind.m, kind.k, kind.k, kind.n,
         to_string(kind.in), error.what());
  }
}

Product::~Product() = default;

void Product::run(const ProductOperands& operands, int64_t m, int64_t k) const {
  thread_local const dnnl::stream stream(engine());
  thread_local Scratch scratch;
  const auto with_handle = [](const memory::desc& desc, const void* data) {
    return memory(desc, engine(), const_cast<void*>(data));
  };
  std::optional<Descriptions> sized;
  if (kind_.m == kAnySize || kind_.k == kAnySize) {
    ProductKind actual = kind_;
    if (actual.m == kAnySize) actual.m = m;
    if (actual.k == kAnySize) actual.k = k;
    sized.emplace(actual);
  }
  const Descriptions& descriptions = sized ? *sized : primitive_->descriptions;
  const memory a = with_handle(descriptions.a, operands.a);
  const memory b = with_handle(descriptions.b, operands.b);
  const memory out = with_handle(descriptions.out, operands.out);
  const memory bias = with_handle(descriptions.bias, operands.bias);
  const memory pad = with_handle(primitive_->scratchpad, scratch.bytes(primitive_->scratchpad.get_size()));
  const std::array<dnnl_exec_arg_t, 5> arguments{{{DNNL_ARG_SRC, a.get()},
                                                  {DNNL_ARG_WEIGHTS, b.get()},
                                                  {DNNL_ARG_DST, out.get()},
                                                  {DNNL_ARG_SCRATCHPAD, pad.get()},
                                                  {DNNL_ARG_BIAS, bias.get()}}};
  const int used = kind_.bias ? 5 : 4;
  const auto status = dnnl_primitive_execute(primitive_->primitive.get(), stream.get(), used, arguments.data());
  MHMOE_CHECK(status == dnnl_success, "oneDNN's product failed with status {}", static_cast<int>(status));
}

}  // namespace mhmoe::cpu
