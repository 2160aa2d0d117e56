// cuBLAS on a context's compute stream: the handle, its workspace, and the one product that everything dense is.
#pragma once

#include <cublas_v2.h>

#include "cuda/cuda_check.h"
#include "device/context.h"

namespace mhmoe::cuda {

[[noreturn]] void fail_cublas(cublasStatus_t status, const char* call, const char* file, int line);

inline void check_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status != CUBLAS_STATUS_SUCCESS) [[unlikely]] {
    fail_cublas(status, call, file, line);
  }
}

// A handle of one stream. cuBLAS takes memory of its own for it and cannot make one while a stream is captured, so it
// is made with the context, before arenas take the device's memory. Throws Error(kMemory) where there is none left for
// it.
class CublasHandle {
 public:
  explicit CublasHandle(cudaStream_t stream) { create(stream); }
  ~CublasHandle();
  CublasHandle(const CublasHandle&) = delete;
  CublasHandle& operator=(const CublasHandle&) = delete;

  // The handle with this workspace from now on.
  cublasHandle_t with(const Tensor& workspace);

 private:
  void create(cudaStream_t stream);

  cublasHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
};

// u8, as much as NVIDIA recommends for the device: 32 MiB from compute capability 9.0, 4 MiB before. It is scratch of
// the step arena like any other, for two reasons: a sizing pass counts it, and calls on one stream never share it at
// one time. With a workspace of the caller's, cuBLAS is deterministic and its calls can be captured.
Tensor allocate_cublas_workspace(Context& ctx);

// A row-major matrix as stored: `stride` elements from a row to the next.
struct GemmMatrix {
  void* data;
  DType dtype;
  int64_t stride;
  bool transposed = false;  // the stored matrix is the transpose of the operand
};

// out[m, n] = op(a)[m, k] op(b)[k, n], or += when `accumulate`. a, b: equal dtype, f32 or bf16; out: f32 or that dtype.
// m, n, k > 0. Sums are f32, and f32 operands are not rounded (no TF32).
struct Gemm {
  int64_t m, n, k;
  GemmMatrix out, a, b;
  bool accumulate = false;
};
void gemm(Context& ctx, const Tensor& workspace, const Gemm& args);

// `count` products of one shape; product i's operands begin i steps behind those of `first`, in elements.
struct GemmBatch {
  Gemm first;
  int64_t count, out_step, a_step, b_step;
};
void gemm(Context& ctx, const Tensor& workspace, const GemmBatch& args);

}  // namespace mhmoe::cuda

// Throws Error(kDevice), or Error(kMemory) when cuBLAS got no memory, with the call, its place, the device and the
// status.
#define MHMOE_CUBLAS_CHECK(call) ::mhmoe::cuda::check_cublas((call), #call, __FILE__, __LINE__)
