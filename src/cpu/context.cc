#include "cpu/context.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "core/parallel_for.h"

namespace mhmoe::cpu {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr int64_t kCopyGrain = int64_t{1} << 20;  // bytes a thread, below which waking it costs more than it saves

class HostMemory final : public MemorySource {
 public:
  void* allocate(size_t bytes) override {
    const size_t alignment = bytes >= 2 * kHugePage ? kHugePage : Arena::kAlignment;
    const size_t rounded = (bytes / alignment + 1) * alignment;
    void* data = std::aligned_alloc(alignment, rounded);
    if (data == nullptr) fail(ExitCode::kMemory, "cannot allocate {} bytes of host memory", bytes);
    // Advice only: without huge pages everything works, with more page-table misses.
    if (alignment == kHugePage) madvise(data, rounded, MADV_HUGEPAGE);
    return data;
  }
  void release(void* data) override { std::free(data); }
  DeviceKind kind() const override { return DeviceKind::kCpu; }
};

class CpuContext final : public Context {
 public:
  explicit CpuContext(const ops::KernelTable& kernels, std::string_view level)
      : Context(std::make_unique<HostMemory>(), &kernels,
                fmt::format("cpu ({} thread{}, {})", thread_count(), thread_count() == 1 ? "" : "s", level)) {}

 protected:
  void do_upload(const Tensor& dst, const void* src) override { parallel_copy(dst.data, src, dst.bytes()); }
  void do_download(void* dst, const Tensor& src) override { parallel_copy(dst, src.data, src.bytes()); }
  void do_fill_zero(const Tensor& dst) override {
    auto* bytes = static_cast<std::byte*>(dst.data);
    parallel_for(static_cast<int64_t>(dst.bytes()), kCopyGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
      std::memset(bytes + begin, 0, static_cast<size_t>(end - begin));
    });
  }
  void do_copy(const Tensor& dst, const Tensor& src) override { parallel_copy(dst.data, src.data, src.bytes()); }

 private:
  static void parallel_copy(void* dst, const void* src, size_t bytes) {
    auto* to = static_cast<std::byte*>(dst);
    const auto* from = static_cast<const std::byte*>(src);
    parallel_for(static_cast<int64_t>(bytes), kCopyGrain, [&](int64_t begin, int64_t end, int /*thread*/) {
      std::memcpy(to + begin, from + begin, static_cast<size_t>(end - begin));
    });
  }
};

}  // namespace

std::unique_ptr<Context> create_context(const ops::KernelTable& kernels, std::string_view level) {
  return std::make_unique<CpuContext>(kernels, level);
}

}  // namespace mhmoe::cpu
