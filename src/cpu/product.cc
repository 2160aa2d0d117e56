#include "cpu/product.h"

#include <array>
#include <functional>
#include <mutex>
#include <oneapi/dnnl/dnnl.hpp>
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
  const memory::dims strides = transpose ? memory::dims{1, leading} : memory::dims{leading, 1};
  return {{rows, cols}, data_type(dtype), strides};
}

// oneDNN's view of an operand. Its C++ class would allocate a reference count for every one.
class Memory {
 public:
  Memory(const memory::desc& description, const void* data) {
    const auto status = dnnl_memory_create(&handle_, &description.data, engine().get(), const_cast<void*>(data));
    MHMOE_CHECK(status == dnnl_success, "oneDNN cannot describe an operand: status {}", static_cast<int>(status));
  }
  ~Memory() { dnnl_memory_destroy(handle_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  dnnl_memory_t get() const { return handle_; }

 private:
  dnnl_memory_t handle_ = nullptr;
};

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

namespace {

bool effective(dnnl::cpu_isa wanted) {
  const auto bits = static_cast<unsigned>(wanted);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & bits) == bits;
}

}  // namespace

bool native_bf16() {
  static const bool kNative = effective(dnnl::cpu_isa::avx512_core_bf16);
  return kNative;
}

bool products_have(std::string_view set) {
  if (set == "avx512bf16") return native_bf16();
  return !set.starts_with("avx512") || effective(dnnl::cpu_isa::avx512_core);
}

bool limit_products(bool avx512f, bool avx512bf16) {
  if (avx512bf16) return true;
  return dnnl_set_max_cpu_isa(avx512f ? dnnl_cpu_isa_avx512_core_vnni : dnnl_cpu_isa_avx2) == dnnl_success;
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

void Product::run(const ProductOperands& operands) const {
  thread_local const dnnl::stream stream(engine());
  thread_local Scratch scratch;
  const Descriptions& d = primitive_->descriptions;
  const Memory a(d.a, operands.a), b(d.b, operands.b), out(d.out, operands.out), bias(d.bias, operands.bias);
  const Memory pad(primitive_->scratchpad, scratch.bytes(primitive_->scratchpad.get_size()));
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
