// Copies and fills. As on a device: pageable host memory is read before an asynchronous copy from it returns, and
// written before one to it returns; pinned memory is read and written when the copy's turn comes.
#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <vector>

#include "call.h"
#include "emulator/fault.h"
#include "memory.h"
#include "streams.h"
#include "text.h"

namespace emulator {
namespace {

// One end of a copy.
struct Side {
  const char* role;
  const Allocation* allocation;  // null: pageable host memory

  bool device() const { return allocation != nullptr && allocation->kind == MemoryKind::kDevice; }
  bool pinned() const { return allocation != nullptr && allocation->kind == MemoryKind::kPinned; }
  uint64_t number() const { return allocation == nullptr ? 0 : allocation->number; }
};

Side find_side(const char* call, const char* role, const void* at, size_t bytes) {
  const Allocation* found = memory().find(at);
  if (found == nullptr) return {role, nullptr};
  if (found->freed) throw Fault(text("%s: the %s was freed: %s", call, role, found->describe().c_str()));
  const auto offset = static_cast<size_t>(static_cast<const std::byte*>(at) - found->data);
  if (bytes > found->bytes - offset) {
    throw Fault(text("%s: the %s, %zu bytes from byte %zu, reaches beyond %s", call, role, bytes, offset,
                     found->describe().c_str()));
  }
  return {role, found};
}

void expect_kind(const char* call, cudaMemcpyKind kind, const Side& target, const Side& source) {
  if (kind == cudaMemcpyDefault) return;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  for (const auto& [side, device] : {std::pair{target, to_device}, std::pair{source, from_device}}) {
    if (side.device() == device) continue;
    throw Fault(
        text("%s: its kind says that the %s is %s memory, but it is not", call, side.role, device ? "device" : "host"));
  }
}

struct Copy {
  const char* call;
  void* target;
  const void* source;
  size_t bytes;
  Side to, from;

  // The work, which checks that nobody freed anything meanwhile.
  std::function<void()> work() const {
    std::shared_ptr<std::vector<std::byte>> staged;
    if (from.allocation == nullptr) {
      const auto* begin = static_cast<const std::byte*>(source);
      staged = std::make_shared<std::vector<std::byte>>(begin, begin + bytes);
    }
    return
        [call = call, target = target, source = source, bytes = bytes, to = to.number(), from = from.number(), staged] {
          if (to != 0) memory().expect_alive(call, to);
          if (from != 0) memory().expect_alive(call, from);
          std::memcpy(target, staged == nullptr ? source : staged->data(), bytes);
        };
  }
};

Copy checked(const char* call, void* target, const void* source, size_t bytes, cudaMemcpyKind kind) {
  const Copy copy = {
      call, target, source, bytes, find_side(call, "target", target, bytes), find_side(call, "source", source, bytes)};
  expect_kind(call, kind, copy.to, copy.from);
  const auto* to = static_cast<const std::byte*>(target);
  const auto* from = static_cast<const std::byte*>(source);
  if (to < from + bytes && from < to + bytes) throw Fault(text("%s: source and target overlap", call));
  return copy;
}

bool is_kind(cudaMemcpyKind kind) {
  return kind >= cudaMemcpyHostToHost && kind <= cudaMemcpyDefault;
}

cudaError_t copy_async(void* target, const void* source, size_t bytes, cudaMemcpyKind kind, cudaStream_t handle) {
  if (!is_kind(kind)) return cudaErrorInvalidMemcpyDirection;
  if (bytes == 0) return cudaSuccess;
  if (target == nullptr || source == nullptr) return cudaErrorInvalidValue;
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  const Copy copy = checked("cudaMemcpyAsync", target, source, bytes, kind);
  const bool pageable = copy.to.allocation == nullptr || copy.from.allocation == nullptr;
  const bool host_only = !copy.to.device() && !copy.from.device();
  if (stream->recording.capture != nullptr && (pageable || host_only)) return refuse_in_capture(stream->recording);
  const cudaError_t code = submit(handle, copy.call, copy.work());
  if (code != cudaSuccess || (copy.to.allocation != nullptr && !host_only)) return code;
  pending().run({&stream->last, 1});
  return device_state();
}

// On the null stream. The host waits unless both sides are device memory, or until pageable memory has been read.
cudaError_t copy(void* target, const void* source, size_t bytes, cudaMemcpyKind kind) {
  if (!is_kind(kind)) return cudaErrorInvalidMemcpyDirection;
  if (const cudaError_t refused = refuse_unsafe_call(); refused != cudaSuccess) return refused;
  if (has_blocking_capture()) return cudaErrorStreamCaptureImplicit;
  if (bytes == 0) return cudaSuccess;
  if (target == nullptr || source == nullptr) return cudaErrorInvalidValue;
  const Copy copy = checked("cudaMemcpy", target, source, bytes, kind);
  const cudaStream_t stream = resolve(nullptr);
  append(stream, copy.work());
  const bool returns_early = copy.to.device() && !copy.from.pinned();
  if (!returns_early) pending().run({&stream->last, 1});
  return device_state();
}

std::function<void()> fill_work(const char* call, void* target, int value, size_t bytes) {
  const Side side = find_side(call, "target", target, bytes);
  if (side.allocation == nullptr) throw Fault(text("%s: the target is neither device memory nor pinned", call));
  return [=, number = side.number()] {
    memory().expect_alive(call, number);
    std::memset(target, value, bytes);
  };
}

cudaError_t fill(void* target, int value, size_t bytes) {
  if (const cudaError_t refused = refuse_unsafe_call(); refused != cudaSuccess) return refused;
  if (has_blocking_capture()) return cudaErrorStreamCaptureImplicit;
  if (bytes == 0) return cudaSuccess;
  if (target == nullptr) return cudaErrorInvalidValue;
  append(resolve(nullptr), fill_work("cudaMemset", target, value, bytes));
  return cudaSuccess;
}

cudaError_t fill_async(void* target, int value, size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (target == nullptr) return cudaErrorInvalidValue;
  return submit(stream, "cudaMemsetAsync", fill_work("cudaMemsetAsync", target, value, bytes));
}

}  // namespace
}  // namespace emulator

using emulator::call;

extern "C" {

cudaError_t cudaMemcpy(void* target, const void* source, size_t bytes, cudaMemcpyKind kind) {
  return call([&] { return emulator::copy(target, source, bytes, kind); });
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return call([&] { return emulator::copy_async(target, source, bytes, kind, stream); });
}
cudaError_t cudaMemset(void* target, int value, size_t bytes) {
  return call([&] { return emulator::fill(target, value, bytes); });
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
  return call([&] { return emulator::fill_async(target, value, bytes, stream); });
}

}  // extern "C"
