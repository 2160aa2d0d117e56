// Matrix products by oneDNN: primitives made once a kind of product, executed many times, from any thread.
#pragma once

#include <memory>
#include <string_view>

#include "core/tensor.h"

namespace mhmoe::cpu {

// Whether this CPU multiplies bf16 itself (AVX512-BF16 or AMX). Without it, products of bf16 run in f32.
bool native_bf16();

// Whether products may use the instruction set (GCC's names); sets that they know nothing of are allowed.
bool products_have(std::string_view set);
// Holds products to processors without the sets of which this is false; false if the library has been used before, or
// refuses.
bool limit_products(bool avx512f, bool avx512bf16);

// out[m, n] = op(a)[m, k] op(b)[k, n] (+ bias[n]) (+ out). Matrices are row-major as stored, lda, ldb, ldc elements
// apart; transpose_x: op(x) is the transpose of what is stored. in: the type of a and b; bias is f32.
struct ProductKind {
  int64_t m, n, k;
  int64_t lda, ldb, ldc;
  bool transpose_a = false;
  bool transpose_b = false;
  bool bias = false;
  bool accumulate = false;
  DType in = DType::kF32;
  DType out = DType::kF32;

  bool operator==(const ProductKind&) const = default;
};

struct ProductOperands {
  void* out;
  const void* a;
  const void* b;
  const void* bias = nullptr;
};

class Product {
 public:
  // The product of this kind for the program's number of threads, made at the first call; it lives until the process
  // ends.
  static const Product& of(const ProductKind& kind);

  explicit Product(const ProductKind& kind);
  ~Product();

  // In a parallel region: one thread.
  void run(const ProductOperands& operands) const;

 private:
  struct Primitive;
  ProductKind kind_;
  std::unique_ptr<Primitive> primitive_;
};

}  // namespace mhmoe::cpu
