// The emulated cuBLAS computes what the manual says, refuses what cuBLAS refuses, and takes the liberties cuBLAS takes.
#include <cublas_v2.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

namespace {

uint16_t to_bf16(float value) {
  return static_cast<uint16_t>((std::bit_cast<uint32_t>(value) + 0x8000u) >> 16);
}
float from_bf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// A column-major matrix with rows between its columns that belong to nobody.
struct Matrix {
  Matrix(int64_t rows, int64_t cols, cudaDataType type, int seed)
      : stride(rows + 3), type(type), floats(static_cast<size_t>(stride * cols)), halves(floats.size()) {
    for (size_t i = 0; i < floats.size(); ++i) {
      floats[i] = static_cast<float>(static_cast<int>(i * 29 + static_cast<size_t>(seed)) % 17 - 8);  // sums are exact
      halves[i] = to_bf16(floats[i]);
    }
  }
  void* data() { return type == CUDA_R_32F ? static_cast<void*>(floats.data()) : halves.data(); }
  float at(int64_t row, int64_t col) const {
    const auto i = static_cast<size_t>(col * stride + row);
    return type == CUDA_R_32F ? floats[i] : from_bf16(halves[i]);
  }

  int64_t stride;
  cudaDataType type;
  std::vector<float> floats;
  std::vector<uint16_t> halves;
};

class Cublas : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(cublasCreate(&handle_), CUBLAS_STATUS_SUCCESS); }
  void TearDown() override { EXPECT_EQ(cublasDestroy(handle_), CUBLAS_STATUS_SUCCESS); }

  cublasStatus_t multiply(cublasOperation_t a_operation, cublasOperation_t b_operation, int64_t m, int64_t n, int64_t k,
                          float alpha, Matrix& a, Matrix& b, float beta, Matrix& c,
                          cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
    return cublasGemmEx_64(handle_, a_operation, b_operation, m, n, k, &alpha, a.data(), a.type, a.stride, b.data(),
                           b.type, b.stride, &beta, c.data(), c.type, c.stride, compute, CUBLAS_GEMM_DEFAULT);
  }

  cublasHandle_t handle_ = nullptr;
};

TEST_F(Cublas, ProductsInEveryLayoutAndTypeLeaveWhatLiesBetweenColumns) {
  const std::pair<cudaDataType, cudaDataType> types[] = {
      {CUDA_R_32F, CUDA_R_32F}, {CUDA_R_16BF, CUDA_R_32F}, {CUDA_R_16BF, CUDA_R_16BF}};
  const auto [m, n, k] = std::tuple{67, 5, 9};
  for (const auto& [in, out] : types) {
    for (const auto a_operation : {CUBLAS_OP_N, CUBLAS_OP_T}) {
      for (const auto b_operation : {CUBLAS_OP_N, CUBLAS_OP_T}) {
        const bool a_plain = a_operation == CUBLAS_OP_N, b_plain = b_operation == CUBLAS_OP_N;
        Matrix a(a_plain ? m : k, a_plain ? k : m, in, 1), b(b_plain ? k : n, b_plain ? n : k, in, 2);
        Matrix c(m, n, out, 3);
        const Matrix before = c;
        ASSERT_EQ(multiply(a_operation, b_operation, m, n, k, 0.5f, a, b, 2, c), CUBLAS_STATUS_SUCCESS);
        for (int64_t j = 0; j < n; ++j) {
          for (int64_t i = 0; i < m; ++i) {
            float sum = 0;
            for (int64_t p = 0; p < k; ++p)
              sum += (a_plain ? a.at(i, p) : a.at(p, i)) * (b_plain ? b.at(p, j) : b.at(j, p));
            const float expected = 0.5f * sum + 2 * before.at(i, j);
            EXPECT_EQ(c.at(i, j), out == CUDA_R_32F ? expected : from_bf16(to_bf16(expected)));
          }
          for (int64_t i = m; i < c.stride; ++i) EXPECT_EQ(c.at(i, j), before.at(i, j));
        }
      }
    }
  }
}

TEST_F(Cublas, ZeroBetaDoesNotReadTheOutput) {
  Matrix a(4, 4, CUDA_R_32F, 1), b(4, 4, CUDA_R_32F, 2), c(4, 4, CUDA_R_32F, 3);
  c.floats.assign(c.floats.size(), NAN);
  ASSERT_EQ(multiply(CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, 1, a, b, 0, c), CUBLAS_STATUS_SUCCESS);
  EXPECT_FALSE(std::isnan(c.at(3, 3)));
  ASSERT_EQ(multiply(CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 0, 1, a, b, 0, c), CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(c.at(3, 3), 0) << "a product over nothing";
}

// Stride and groups against single products of the same operands.
TEST_F(Cublas, BatchesAndGroupsAreProductsOneByOne) {
  Matrix a(3, 6, CUDA_R_16BF, 1), b(2, 8, CUDA_R_16BF, 2), c(3, 8, CUDA_R_32F, 3), expected = c;
  const float one = 1, beta = 1;
  for (int i = 0; i < 2; ++i) {
    ASSERT_EQ(cublasGemmEx(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 3, 4, 2, &one, a.halves.data() + i * 3 * a.stride,
                           CUDA_R_16BF, static_cast<int>(a.stride), b.halves.data() + i * 4 * b.stride, CUDA_R_16BF,
                           static_cast<int>(b.stride), &beta, expected.floats.data() + i * 4 * c.stride, CUDA_R_32F,
                           static_cast<int>(c.stride), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
              CUBLAS_STATUS_SUCCESS);
  }
  Matrix strided = c, grouped = c;
  ASSERT_EQ(
      cublasGemmStridedBatchedEx_64(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 3, 4, 2, &one, a.data(), CUDA_R_16BF, a.stride,
                                    3 * a.stride, b.data(), CUDA_R_16BF, b.stride, 4 * b.stride, &beta, strided.data(),
                                    CUDA_R_32F, c.stride, 4 * c.stride, 2, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
      CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(strided.floats, expected.floats);

  const cublasOperation_t none[] = {CUBLAS_OP_N, CUBLAS_OP_N};
  const int64_t m[] = {3, 3}, n[] = {4, 4}, k[] = {2, 2}, sizes[] = {1, 1};
  const int64_t lda[] = {a.stride, a.stride}, ldb[] = {b.stride, b.stride}, ldc[] = {c.stride, c.stride};
  const float ones[] = {1, 1};
  const void* as[] = {a.halves.data(), a.halves.data() + 3 * a.stride};
  const void* bs[] = {b.halves.data(), b.halves.data() + 4 * b.stride};
  void* cs[] = {grouped.floats.data(), grouped.floats.data() + 4 * c.stride};
  ASSERT_EQ(cublasGemmGroupedBatchedEx_64(handle_, none, none, m, n, k, ones, as, CUDA_R_16BF, lda, bs, CUDA_R_16BF,
                                          ldb, ones, cs, CUDA_R_32F, ldc, 2, sizes, CUBLAS_COMPUTE_32F),
            CUBLAS_STATUS_SUCCESS);
  EXPECT_EQ(grouped.floats, expected.floats);
}

TEST_F(Cublas, RefusesWhatCublasRefuses) {
  Matrix a(4, 4, CUDA_R_32F, 1), b(4, 4, CUDA_R_32F, 2), c(4, 4, CUDA_R_32F, 3), halves(4, 4, CUDA_R_16BF, 4);
  const auto status = [&](int64_t m, Matrix& left, Matrix& out, cublasComputeType_t compute = CUBLAS_COMPUTE_32F) {
    return multiply(CUBLAS_OP_N, CUBLAS_OP_N, m, 4, 4, 1, left, b, 0, out, compute);
  };
  EXPECT_EQ(status(-1, a, c), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(status(8, a, c), CUBLAS_STATUS_INVALID_VALUE) << "columns closer together than they are long";
  EXPECT_EQ(status(4, halves, c), CUBLAS_STATUS_NOT_SUPPORTED) << "operands of two types";
  EXPECT_EQ(status(4, a, halves), CUBLAS_STATUS_NOT_SUPPORTED) << "f32 to bf16";
  EXPECT_EQ(status(4, a, c, CUBLAS_COMPUTE_16F), CUBLAS_STATUS_NOT_SUPPORTED);
  EXPECT_EQ(cublasSetWorkspace(handle_, a.floats.data() + 1, 64), CUBLAS_STATUS_INVALID_VALUE);
  EXPECT_EQ(cublasSetStream(nullptr, nullptr), CUBLAS_STATUS_NOT_INITIALIZED);
}

TEST_F(Cublas, EveryProductSpoilsTheWorkspaceUntilTheStreamChanges) {
  alignas(256) static float workspace[64 << 10];
  Matrix a(4, 4, CUDA_R_32F, 1), b(4, 4, CUDA_R_32F, 2), c(4, 4, CUDA_R_32F, 3);
  ASSERT_EQ(cublasSetWorkspace(handle_, workspace, sizeof(workspace)), CUBLAS_STATUS_SUCCESS);
  const auto spoilt = [&](size_t i) {
    workspace[i] = 0;
    multiply(CUBLAS_OP_N, CUBLAS_OP_N, 4, 4, 4, 1, a, b, 0, c);
    return std::isnan(workspace[i]);
  };
  EXPECT_TRUE(spoilt(0) && spoilt(32 << 10) && spoilt((64 << 10) - 1));
  ASSERT_EQ(cublasSetStream(handle_, nullptr), CUBLAS_STATUS_SUCCESS);
  EXPECT_FALSE(spoilt(0)) << "the new stream has cuBLAS's own workspace";
}

// 1 + 2^-12 is 1 in TF32; 256 + 1 + 1 is 256 in bf16 if the ones are added one after the other.
TEST_F(Cublas, MathModesAllowLessPrecision) {
  Matrix a(1, 1, CUDA_R_32F, 1), b = a, c = a;
  a.floats[0] = 1 + 0x1p-12f, b.floats[0] = 1;
  multiply(CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, 1, a, b, 0, c);
  EXPECT_EQ(c.floats[0], 1 + 0x1p-12f);
  cublasSetMathMode(handle_, CUBLAS_TF32_TENSOR_OP_MATH);
  multiply(CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, 1, a, b, 0, c);
  EXPECT_EQ(c.floats[0], 1);

  Matrix row(1, 768, CUDA_R_16BF, 1), ones(768, 1, CUDA_R_16BF, 1), sum(1, 1, CUDA_R_16BF, 1);
  ones.halves.assign(ones.halves.size(), to_bf16(1));
  row.halves.assign(row.halves.size(), 0);
  for (const auto& [col, value] : {std::pair{0, 256.0f}, {300, 1.0f}, {600, 1.0f}})
    row.halves[col * row.stride] = to_bf16(value);
  multiply(CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 768, 1, row, ones, 0, sum);
  EXPECT_EQ(from_bf16(sum.halves[0]), 256);
  cublasSetMathMode(handle_, CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
  multiply(CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 768, 1, row, ones, 0, sum);
  EXPECT_EQ(from_bf16(sum.halves[0]), 258);
}

}  // namespace
