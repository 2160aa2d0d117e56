#include "cuda/context.h"

#include <cstdlib>
#include <optional>

#include "core/log.h"
#include "cuda/cublas.h"
#include "cuda/cuda_check.h"
#include "cuda/identity.h"
#include "cuda/kernel_table.h"

namespace mhmoe::cuda {
namespace {

// Tests of ops read and write tensors in place, also those of a GPU: its driver then moves the pages that are touched.
bool wants_managed_memory() {
  return std::getenv("MHMOE_MANAGED_MEMORY") != nullptr;
}

class DeviceMemory final : public MemorySource {
 public:
  void* allocate(size_t bytes) override {
    void* data = nullptr;
    const bool managed = wants_managed_memory();
    const cudaError_t code = managed ? cudaMallocManaged(&data, bytes) : cudaMalloc(&data, bytes);
    if (code == cudaErrorMemoryAllocation) fail_out_of_memory(bytes);
    check_call(code, managed ? "cudaMallocManaged(&data, bytes)" : "cudaMalloc(&data, bytes)", __FILE__, __LINE__);
    return data;
  }

  // Runs in destructors, so a failure is said and not thrown.
  void release(void* data) override {
    const cudaError_t code = cudaFree(data);
    if (code != cudaSuccess) log::error("CUDA: cudaFree: {}", cudaGetErrorString(code));
  }

  DeviceKind kind() const override { return DeviceKind::kCuda; }

 private:
  [[noreturn]] static void fail_out_of_memory(size_t bytes) {
    cudaGetLastError();
    size_t available = 0, total = 0;
    MHMOE_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    fail(ExitCode::kMemory,
         "CUDA: out of memory: {} bytes asked for, {} of {} bytes free; use smaller micro-batches, recompute, or more "
         "devices",
         bytes, available, total);
  }
};

class CudaContext final : public Context {
 public:
  explicit CudaContext(int ordinal)
      : Context(std::make_unique<DeviceMemory>(), &kernel_table(), context_name(ordinal)) {
    MHMOE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    cublas_.emplace(stream_);
  }

  ~CudaContext() override {
    cublas_.reset();
    const cudaError_t code = cudaStreamDestroy(stream_);
    if (code != cudaSuccess) log::error("CUDA: cudaStreamDestroy: {}", cudaGetErrorString(code));
  }

  void synchronize() override { MHMOE_CUDA_CHECK(cudaStreamSynchronize(stream_)); }
  void* compute_stream() const override { return stream_; }
  CublasHandle& cublas() { return *cublas_; }

 protected:
  void do_upload(const Tensor& dst, const void* src) override {
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(dst.data, src, dst.bytes(), cudaMemcpyHostToDevice, stream_));
    synchronize();
  }
  void do_download(void* dst, const Tensor& src) override {
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(dst, src.data, src.bytes(), cudaMemcpyDeviceToHost, stream_));
    synchronize();
  }
  void do_fill_zero(const Tensor& dst) override {
    MHMOE_CUDA_CHECK(cudaMemsetAsync(dst.data, 0, dst.bytes(), stream_));
  }
  void do_copy(const Tensor& dst, const Tensor& src) override {
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(dst.data, src.data, dst.bytes(), cudaMemcpyDeviceToDevice, stream_));
  }

 private:
  cudaStream_t stream_ = nullptr;
  std::optional<CublasHandle> cublas_;
};

}  // namespace

std::unique_ptr<Context> create_context(int ordinal) {
  MHMOE_CUDA_CHECK(cudaSetDevice(ordinal));
  return std::make_unique<CudaContext>(ordinal);
}

CublasHandle& cublas_of(Context& ctx) {
  return static_cast<CudaContext&>(ctx).cublas();
}

// The count is not touched when the call fails, so only the code tells.
const char* unusable_reason() {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code == cudaSuccess) return devices > 0 ? nullptr : "the driver knows no device";
  cudaGetLastError();
  int driver = 0;
  if (code == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) {
    return "driver missing (no libcuda.so.1)";
  }
  return cudaGetErrorString(code);
}

bool prefers_bf16() {
  int major = 0;
  MHMOE_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0));
  return major >= 8;
}

}  // namespace mhmoe::cuda
