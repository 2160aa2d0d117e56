// The part of cuBLAS that programs with row-major matrices of f32 and bf16 need, on host memory. Arguments are refused
// as cuBLAS refuses them. What a handle does besides: it spoils its workspace with every product, so that a workspace
// which is freed or is somebody's data is found; and it takes the liberties with precision that its math mode allows.
#include <cublas_v2.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "call.h"
#include "emulator/stream.h"
#include "gemm.h"
#include "objects.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  std::byte* workspace = nullptr;
  size_t workspace_bytes = 0;
  int math_mode = CUBLAS_DEFAULT_MATH;
};

namespace emulator {
namespace {

// The beginning, the end, and a line every page.
void spoil(std::byte* workspace, size_t bytes) {
  constexpr int kPoison = 0xff;
  constexpr size_t kEdge = size_t{64} << 10, kPage = 4096, kLine = 64;
  const size_t edge = std::min(bytes, kEdge);
  if (edge == 0) return;
  std::memset(workspace, kPoison, edge);
  std::memset(workspace + bytes - edge, kPoison, edge);
  for (size_t at = 0; at + kLine <= bytes; at += kPage) std::memset(workspace + at, kPoison, kLine);
}

cublasStatus_t submit(cudaStream_t stream, const char* what, const std::function<void()>& work,
                      const std::vector<const void*>& addresses) {
  return enqueue(stream, what, work, addresses) == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

// One product as cuBLAS is asked for it.
struct Call {
  cublasOperation_t a_operation, b_operation;
  int64_t m, n, k;
  float alpha, beta;
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  void* c;
  int64_t ldc;
};
struct Types {
  cudaDataType a, b, c;
  cublasComputeType_t compute;
};

bool known(cublasOperation_t operation) {
  return operation == CUBLAS_OP_N || operation == CUBLAS_OP_T || operation == CUBLAS_OP_C;
}

cublasStatus_t check(const Call& call) {
  if (!known(call.a_operation) || !known(call.b_operation)) return CUBLAS_STATUS_INVALID_VALUE;
  if (call.m < 0 || call.n < 0 || call.k < 0) return CUBLAS_STATUS_INVALID_VALUE;
  const auto least = [](int64_t rows) { return std::max<int64_t>(rows, 1); };
  const bool wide_enough = call.lda >= least(call.a_operation == CUBLAS_OP_N ? call.m : call.k) &&
                           call.ldb >= least(call.b_operation == CUBLAS_OP_N ? call.k : call.n) &&
                           call.ldc >= least(call.m);
  return wide_enough ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t check(const Types& types) {
  const bool float_in = types.a == CUDA_R_32F, bf16_in = types.a == CUDA_R_16BF;
  const bool float_out = types.c == CUDA_R_32F, bf16_out = types.c == CUDA_R_16BF;
  const bool sums = types.compute == CUBLAS_COMPUTE_32F || types.compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                    (types.compute == CUBLAS_COMPUTE_32F_FAST_TF32 && float_in);
  const bool offered = types.a == types.b && sums && ((float_in && float_out) || (bf16_in && (float_out || bf16_out)));
  return offered ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

Product product_of(const cublasContext& handle, const Call& call, const Types& types) {
  const auto element = [](cudaDataType type) { return type == CUDA_R_32F ? Element::kF32 : Element::kBf16; };
  const int mode = handle.math_mode & 0xf;
  return {.m = call.m,
          .n = call.n,
          .k = call.k,
          .alpha = call.alpha,
          .beta = call.beta,
          .a = {call.a, call.lda, call.a_operation != CUBLAS_OP_N},
          .b = {call.b, call.ldb, call.b_operation != CUBLAS_OP_N},
          .c = call.c,
          .c_stride = call.ldc,
          .in = element(types.a),
          .out = element(types.c),
          .round_to_tf32 = types.compute == CUBLAS_COMPUTE_32F_FAST_TF32 || mode == CUBLAS_TF32_TENSOR_OP_MATH,
          .reduce_narrow = (handle.math_mode & CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION) == 0};
}

const void* advanced(const void* data, cudaDataType type, int64_t elements) {
  return static_cast<const std::byte*>(data) + elements * (type == CUDA_R_32F ? 4 : 2);
}

// From one product of a batch to the next, in elements.
struct Batch {
  int64_t a_step, b_step, c_step, count;
};

cublasStatus_t run_strided(cublasHandle_t handle, const Call& call, const Types& types, const Batch& batch) {
  if (const auto status = check(call); status != CUBLAS_STATUS_SUCCESS) return status;
  if (const auto status = check(types); status != CUBLAS_STATUS_SUCCESS) return status;
  if (batch.count < 0) return CUBLAS_STATUS_INVALID_VALUE;
  if (call.m == 0 || call.n == 0 || batch.count == 0) return CUBLAS_STATUS_SUCCESS;
  const auto work = [state = *handle, call, types, batch] {
    spoil(state.workspace, state.workspace_bytes);
    for (int64_t i = 0; i < batch.count; ++i) {
      Call one = call;
      one.a = advanced(call.a, types.a, i * batch.a_step);
      one.b = advanced(call.b, types.b, i * batch.b_step);
      one.c = const_cast<void*>(advanced(call.c, types.c, i * batch.c_step));
      multiply(product_of(state, one, types));
    }
  };
  return submit(handle->stream, "cublasGemmEx", work, {call.a, call.b, call.c, handle->workspace});
}

// The sizes are host memory and are read now; the arrays of pointers are device memory and are read when the stream
// gets there.
template <class Int>
cublasStatus_t run_grouped(cublasHandle_t handle, const cublasOperation_t* a_operation,
                           const cublasOperation_t* b_operation, const Int* m, const Int* n, const Int* k,
                           const void* alpha, const void* const* a, const Int* lda, const void* const* b,
                           const Int* ldb, const void* beta, void* const* c, const Int* ldc, Int count,
                           const Int* sizes, const Types& types) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (count < 0 || alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  if (const auto status = check(types); status != CUBLAS_STATUS_SUCCESS) return status;
  std::vector<Call> calls;  // one a product, in the order of the pointers
  for (Int g = 0; g < count; ++g) {
    const Call call = {a_operation[g],
                       b_operation[g],
                       m[g],
                       n[g],
                       k[g],
                       static_cast<const float*>(alpha)[g],
                       static_cast<const float*>(beta)[g],
                       nullptr,
                       lda[g],
                       nullptr,
                       ldb[g],
                       nullptr,
                       ldc[g]};
    if (const auto status = check(call); status != CUBLAS_STATUS_SUCCESS) return status;
    if (sizes[g] < 0) return CUBLAS_STATUS_INVALID_VALUE;
    calls.insert(calls.end(), static_cast<size_t>(sizes[g]), call);
  }
  const auto work = [state = *handle, calls, types, a, b, c]() mutable {
    spoil(state.workspace, state.workspace_bytes);
    for (size_t i = 0; i < calls.size(); ++i) {
      calls[i].a = a[i], calls[i].b = b[i], calls[i].c = c[i];
      multiply(product_of(state, calls[i], types));
    }
  };
  return submit(handle->stream, "cublasGemmGroupedBatchedEx", work, {a, b, c, handle->workspace});
}

}  // namespace
}  // namespace emulator

using emulator::Call;
using emulator::Types;

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  if (handle == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const std::lock_guard lock(emulator::runtime_mutex());
  if (emulator::device_state() != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *handle = new cublasContext;
  emulator::track(*handle, "a cuBLAS handle");
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  const std::lock_guard lock(emulator::runtime_mutex());
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (!emulator::forget(handle)) {
    emulator::report_finding("cublasDestroy: there is no such handle; destroyed before?");
    return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  delete handle;
  return CUBLAS_STATUS_SUCCESS;
}
// A handle that gets another stream forgets its workspace.
cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->stream = stream;
  handle->workspace = nullptr;
  handle->workspace_bytes = 0;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void* workspace, size_t bytes) {
  constexpr size_t kAlignment = 256;
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (reinterpret_cast<uintptr_t>(workspace) % kAlignment != 0) return CUBLAS_STATUS_INVALID_VALUE;
  handle->workspace = static_cast<std::byte*>(workspace);
  handle->workspace_bytes = workspace == nullptr ? 0 : bytes;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  handle->math_mode = mode;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  *mode = static_cast<cublasMath_t>(handle->math_mode);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasGemmStridedBatchedEx_64(cublasHandle_t handle, cublasOperation_t a_operation,
                                             cublasOperation_t b_operation, int64_t m, int64_t n, int64_t k,
                                             const void* alpha, const void* a, cudaDataType a_type, int64_t lda,
                                             long long a_step, const void* b, cudaDataType b_type, int64_t ldb,
                                             long long b_step, const void* beta, void* c, cudaDataType c_type,
                                             int64_t ldc, long long c_step, int64_t batch, cublasComputeType_t compute,
                                             cublasGemmAlgo_t /*algo*/) {
  if (handle == nullptr) return CUBLAS_STATUS_NOT_INITIALIZED;
  if (alpha == nullptr || beta == nullptr) return CUBLAS_STATUS_INVALID_VALUE;
  const Call call = {
      a_operation, b_operation, m,   n, k,  *static_cast<const float*>(alpha), *static_cast<const float*>(beta), a,
      lda,         b,           ldb, c, ldc};
  return emulator::run_strided(handle, call, {a_type, b_type, c_type, compute}, {a_step, b_step, c_step, batch});
}
cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t a_operation,
                                          cublasOperation_t b_operation, int m, int n, int k, const void* alpha,
                                          const void* a, cudaDataType a_type, int lda, long long a_step, const void* b,
                                          cudaDataType b_type, int ldb, long long b_step, const void* beta, void* c,
                                          cudaDataType c_type, int ldc, long long c_step, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx_64(handle, a_operation, b_operation, m, n, k, alpha, a, a_type, lda, a_step, b,
                                       b_type, ldb, b_step, beta, c, c_type, ldc, c_step, batch, compute, algo);
}
cublasStatus_t cublasGemmEx_64(cublasHandle_t handle, cublasOperation_t a_operation, cublasOperation_t b_operation,
                               int64_t m, int64_t n, int64_t k, const void* alpha, const void* a, cudaDataType a_type,
                               int64_t lda, const void* b, cudaDataType b_type, int64_t ldb, const void* beta, void* c,
                               cudaDataType c_type, int64_t ldc, cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  return cublasGemmStridedBatchedEx_64(handle, a_operation, b_operation, m, n, k, alpha, a, a_type, lda, 0, b, b_type,
                                       ldb, 0, beta, c, c_type, ldc, 0, 1, compute, algo);
}
cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t a_operation, cublasOperation_t b_operation, int m,
                            int n, int k, const void* alpha, const void* a, cudaDataType a_type, int lda, const void* b,
                            cudaDataType b_type, int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t algo) {
  return cublasGemmEx_64(handle, a_operation, b_operation, m, n, k, alpha, a, a_type, lda, b, b_type, ldb, beta, c,
                         c_type, ldc, compute, algo);
}

cublasStatus_t cublasGemmGroupedBatchedEx_64(cublasHandle_t handle, const cublasOperation_t a_operation[],
                                             const cublasOperation_t b_operation[], const int64_t m[],
                                             const int64_t n[], const int64_t k[], const void* alpha,
                                             const void* const a[], cudaDataType_t a_type, const int64_t lda[],
                                             const void* const b[], cudaDataType_t b_type, const int64_t ldb[],
                                             const void* beta, void* const c[], cudaDataType_t c_type,
                                             const int64_t ldc[], int64_t count, const int64_t sizes[],
                                             cublasComputeType_t compute) {
  return emulator::run_grouped(handle, a_operation, b_operation, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count,
                               sizes, {a_type, b_type, c_type, compute});
}
cublasStatus_t cublasGemmGroupedBatchedEx(cublasHandle_t handle, const cublasOperation_t a_operation[],
                                          const cublasOperation_t b_operation[], const int m[], const int n[],
                                          const int k[], const void* alpha, const void* const a[],
                                          cudaDataType_t a_type, const int lda[], const void* const b[],
                                          cudaDataType_t b_type, const int ldb[], const void* beta, void* const c[],
                                          cudaDataType_t c_type, const int ldc[], int count, const int sizes[],
                                          cublasComputeType_t compute) {
  return emulator::run_grouped(handle, a_operation, b_operation, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, count,
                               sizes, {a_type, b_type, c_type, compute});
}

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    default:
      return "a status the emulator has no name for";
  }
}
const char* cublasGetStatusString(cublasStatus_t status) {
  return cublasGetStatusName(status);
}

}  // extern "C"
