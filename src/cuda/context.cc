#include "cuda/context.h"

#include <array>
#include <cstdlib>
#include <optional>

#include "core/rank.h"
#include "cuda/cublas.h"
#include "cuda/device.h"
#include "cuda/graph.h"
#include "cuda/handles.h"
#include "cuda/identity.h"
#include "cuda/kernel_table.h"
#include "cuda/peers.h"
#include "cuda/staging.h"

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

  void release(void* data) override {
    const cudaError_t code = cudaFree(data);
    if (code != cudaSuccess) report_failed_release("cudaFree", cudaGetErrorString(code));
  }

  DeviceKind kind() const override { return DeviceKind::kCuda; }

 private:
  [[noreturn]] static void fail_out_of_memory(size_t bytes) {
    cudaGetLastError();
    int device = 0;
    size_t available = 0, total = 0;
    MHMOE_CUDA_CHECK(cudaGetDevice(&device));
    MHMOE_CUDA_CHECK(cudaMemGetInfo(&available, &total));
    fail(ExitCode::kMemory, "CUDA: out of memory on rank {}, device {}: {} bytes asked for, {} of {} bytes free",
         process_rank(), device, bytes, available, total);
  }
};

class CudaContext final : public Context {
 public:
  explicit CudaContext(int ordinal)
      : Context(std::make_unique<DeviceMemory>(), &kernel_table(), context_name(ordinal)),
        compute_(make_stream()),
        communication_(make_stream()),
        staging_(compute_.get()),
        cublas_(compute_.get()) {
    for (EventHandle& event : marks_) event = make_event();
  }

  void* compute_stream() const override { return compute_.get(); }
  void* communication_stream() const override { return communication_.get(); }
  CublasHandle& cublas() { return cublas_; }
  Peers& peers() { return peers_; }

  void plan_uploads(size_t bytes) override { staging_.plan(bytes); }

  StreamMark mark(Stream stream) override {
    const uint64_t number = next_mark_++;
    MHMOE_CUDA_CHECK(cudaEventRecord(marks_[number % kMarks].get(), native(stream)));
    return {stream, number};
  }

  void wait(Stream waiting, StreamMark mark) override {
    MHMOE_CHECK(next_mark_ - mark.number <= kMarks, "a wait for mark {}, of which the last {} are kept, up to {}",
                mark.number, kMarks, next_mark_ - 1);
    if (waiting == mark.stream) return;
    MHMOE_CUDA_CHECK(cudaStreamWaitEvent(native(waiting), marks_[mark.number % kMarks].get(), 0));
  }

  bool can_record() const override { return true; }

 protected:
  void do_upload(const Tensor& dst, const void* src) override {
    staging_.upload(dst.data, src, dst.bytes(), [this](cudaEvent_t event) {
      check_host_sync("Context::upload");
      peers_.wait(event);
    });
  }
  // Copies to ordinary memory block the host, which would not notice lost ranks: the work before them is waited for.
  void do_download(void* dst, const Tensor& src) override {
    peers_.wait(compute_.get());
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(dst, src.data, src.bytes(), cudaMemcpyDeviceToHost, compute_.get()));
    peers_.wait(compute_.get());
  }
  void do_fill_zero(const Tensor& dst) override {
    MHMOE_CUDA_CHECK(cudaMemsetAsync(dst.data, 0, dst.bytes(), compute_.get()));
  }
  void do_copy(const Tensor& dst, const Tensor& src) override {
    MHMOE_CUDA_CHECK(cudaMemcpyAsync(dst.data, src.data, dst.bytes(), cudaMemcpyDeviceToDevice, compute_.get()));
  }
  void do_synchronize() override {
    peers_.wait(compute_.get());
    peers_.wait(communication_.get());
  }
  std::unique_ptr<RecordedWork> do_record(const std::function<void()>& work) override {
    return peers_.count([&] { return capture(compute_.get(), work); });
  }

 private:
  static constexpr uint64_t kMarks = 32;

  cudaStream_t native(Stream stream) const {
    return stream == Stream::kCompute ? compute_.get() : communication_.get();
  }

  Peers peers_;
  StreamHandle compute_, communication_;
  std::array<EventHandle, kMarks> marks_;
  uint64_t next_mark_ = 0;
  StagingRing staging_;
  CublasHandle cublas_;
};

}  // namespace

std::unique_ptr<Context> create_context(int rank) {
  const int ordinal = device_ordinal(rank);
  MHMOE_CUDA_CHECK(cudaSetDevice(ordinal));
  return std::make_unique<CudaContext>(ordinal);
}

CublasHandle& cublas_of(Context& ctx) {
  return static_cast<CudaContext&>(ctx).cublas();
}

Peers& peers_of(Context& ctx) {
  return static_cast<CudaContext&>(ctx).peers();
}

}  // namespace mhmoe::cuda
