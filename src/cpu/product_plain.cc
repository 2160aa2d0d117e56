// Products for ThreadSanitizer, which does not see into oneDNN and does not understand how its threads wait for each
// other.
#include "cpu/product.h"

#include <list>
#include <mutex>

#include "core/error.h"

namespace mhmoe::cpu {

// Products of bf16 come here as f32.
bool native_bf16() {
  return false;
}

bool products_have(std::string_view set) {
  return set != "avx512bf16";
}
bool limit_products(bool /*avx512f*/, bool /*avx512bf16*/) {
  return true;
}

namespace {

void sgemm(char op_a, char op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
           const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      float sum = 0;
      for (int64_t l = 0; l < k; ++l) {
        sum += (op_a == 'T' ? a[l * lda + i] : a[i * lda + l]) * (op_b == 'T' ? b[j * ldb + l] : b[l * ldb + j]);
      }
      c[i * ldc + j] = alpha * sum + (beta == 0 ? 0 : beta * c[i * ldc + j]);
    }
  }
}

}  // namespace

struct Product::Primitive {};

const Product& Product::of(const ProductKind& kind) {
  static std::mutex mutex;
  static std::list<Product> products;
  const std::lock_guard lock(mutex);
  for (const Product& product : products) {
    if (product.kind_ == kind) return product;
  }
  return products.emplace_back(kind);
}

Product::Product(const ProductKind& kind) : kind_(kind) {}

Product::~Product() = default;

void Product::run(const ProductOperands& operands) const {
  MHMOE_CHECK(kind_.in == DType::kF32 && kind_.out == DType::kF32, "a plain product is of f32");
  auto* out = static_cast<float*>(operands.out);
  sgemm(kind_.transpose_a ? 'T' : 'N', kind_.transpose_b ? 'T' : 'N', kind_.m, kind_.n, kind_.k, 1,
        static_cast<const float*>(operands.a), kind_.lda, static_cast<const float*>(operands.b), kind_.ldb,
        kind_.accumulate ? 1.0f : 0.0f, out, kind_.ldc);
  if (!kind_.bias) return;
  const auto* bias = static_cast<const float*>(operands.bias);
  for (int64_t i = 0; i < kind_.m; ++i) {
    for (int64_t j = 0; j < kind_.n; ++j) out[i * kind_.ldc + j] += bias[j];
  }
}

}  // namespace mhmoe::cpu
