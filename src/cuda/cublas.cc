#include "cuda/cublas.h"

#include "cuda/context.h"

namespace mhmoe::cuda {
namespace {

cudaDataType type_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return CUDA_R_32F;
    case DType::kBF16:
      return CUDA_R_16BF;
    default:
      fail(ExitCode::kInternal, "[gemm] no product of {}", to_string(dtype));
  }
}

// cuBLAS is column-major: it sees every row-major matrix as its transpose, so out^T = op(b)^T op(a)^T is asked for.
struct Call {
  explicit Call(const Gemm& args)
      : beta(args.accumulate ? 1.0f : 0.0f),
        a_operation(args.a.transposed ? CUBLAS_OP_T : CUBLAS_OP_N),
        b_operation(args.b.transposed ? CUBLAS_OP_T : CUBLAS_OP_N) {}

  float alpha = 1, beta;
  cublasOperation_t a_operation, b_operation;
};

}  // namespace

void fail_cublas(cublasStatus_t status, const char* call, const char* file, int line) {
  fail_call(status == CUBLAS_STATUS_ALLOC_FAILED ? ExitCode::kMemory : ExitCode::kDevice, call, file, line,
            fmt::format("{} ({})", cublasGetStatusString(status), cublasGetStatusName(status)));
}

namespace {

// cuBLAS says no more than that it "was not initialized" where another program has the device's memory.
cublasHandle_t make_cublas() {
  cublasHandle_t handle = nullptr;
  const cublasStatus_t status = cublasCreate(&handle);
  if (status != CUBLAS_STATUS_NOT_INITIALIZED && status != CUBLAS_STATUS_ALLOC_FAILED) {
    check_cublas(status, "cublasCreate(&handle)", __FILE__, __LINE__);
    return handle;
  }
  size_t available = 0, total = 0;
  MHMOE_CUDA_CHECK(cudaMemGetInfo(&available, &total));
  fail_call(ExitCode::kMemory, "cublasCreate(&handle)", __FILE__, __LINE__,
            fmt::format("{}: cuBLAS found too little memory for itself, {} of {} bytes are free; end other programs on "
                        "this device (nvidia-smi lists them), or use another",
                        cublasGetStatusName(status), available, total));
}

}  // namespace

CublasHandle::~CublasHandle() {
  const cublasStatus_t status = cublasDestroy(handle_);
  if (status != CUBLAS_STATUS_SUCCESS) report_failed_release("cublasDestroy", cublasGetStatusString(status));
}

// The default mode never rounds f32 operands to TF32. Not the pedantic one, which would keep bf16 products off the
// tensor cores; but partial sums of a split product are added in f32 also where the output is bf16.
void CublasHandle::create(cudaStream_t stream) {
  handle_ = make_cublas();
  MHMOE_CUBLAS_CHECK(cublasSetStream(handle_, stream));
  constexpr int kMode = int{CUBLAS_DEFAULT_MATH} | int{CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION};
  MHMOE_CUBLAS_CHECK(cublasSetMathMode(handle_, static_cast<cublasMath_t>(kMode)));
}

cublasHandle_t CublasHandle::with(const Tensor& workspace) {
  if (workspace.data != workspace_) {
    MHMOE_CUBLAS_CHECK(cublasSetWorkspace(handle_, workspace.data, workspace.bytes()));
    workspace_ = workspace.data;
  }
  return handle_;
}

Tensor allocate_cublas_workspace(Context& ctx) {
  constexpr int64_t kMebibyte = int64_t{1} << 20;
  // A sizing pass may run where no device is: the most is planned for then.
  int device = 0, major = 9;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess) {
    cudaGetLastError();
  }
  return ctx.step().allocate("cublas_workspace", DType::kU8, {(major >= 9 ? 32 : 4) * kMebibyte});
}

void gemm(Context& ctx, const Tensor& workspace, const Gemm& args) {
  const Call call(args);
  MHMOE_CUBLAS_CHECK(cublasGemmEx_64(
      cublas_of(ctx).with(workspace), call.b_operation, call.a_operation, args.n, args.m, args.k, &call.alpha,
      args.b.data, type_of(args.b.dtype), args.b.stride, args.a.data, type_of(args.a.dtype), args.a.stride, &call.beta,
      args.out.data, type_of(args.out.dtype), args.out.stride, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

void gemm(Context& ctx, const Tensor& workspace, const GemmBatch& batch) {
  const Gemm& args = batch.first;
  const Call call(args);
  MHMOE_CUBLAS_CHECK(cublasGemmStridedBatchedEx_64(
      cublas_of(ctx).with(workspace), call.b_operation, call.a_operation, args.n, args.m, args.k, &call.alpha,
      args.b.data, type_of(args.b.dtype), args.b.stride, batch.b_step, args.a.data, type_of(args.a.dtype),
      args.a.stride, batch.a_step, &call.beta, args.out.data, type_of(args.out.dtype), args.out.stride, batch.out_step,
      batch.count, CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
}

}  // namespace mhmoe::cuda
