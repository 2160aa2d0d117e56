// Matrix products by oneDNN: primitives made once a kind of product, executed many times, from any thread.
#pragma once

#include <memory>

#include "core/tensor.h"

namespace mhmoe::cpu {

// Whether this CPU multiplies bf16 itself (AVX512-BF16 or AMX). Without it, products of bf16 run in f32.
bool native_bf16();

// A size that is given at execution instead.
inline constexpr int64_t kAnySize = -1;

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

// c[m, n] = alpha op(a)[m, k] op(b)[k, n] + beta c in f32; op is 'T' for the transpose of what is stored, else 'N'.
// Matrices as above. In a parallel region: one thread.
void sgemm(char op_a, char op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
           const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

class Product {
 public:
  // The product of this kind for the program's number of threads, made at the first call; it lives until the process
  // ends.
  static const Product& of(const ProductKind& kind);

  explicit Product(const ProductKind& kind);
  ~Product();

  // m and k matter only where the kind says kAnySize; all sizes at least 1. In a parallel region: one thread.
  void run(const ProductOperands& operands, int64_t m = kAnySize, int64_t k = kAnySize) const;

 private:
  struct Primitive;
  ProductKind kind_;
  std::unique_ptr<Primitive> primitive_;
};

}  // namespace mhmoe::cpu
