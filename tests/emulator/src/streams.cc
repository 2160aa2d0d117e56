#include "streams.h"

#include <algorithm>
#include <string>
#include <utility>

#include "call.h"
#include "emulator/fault.h"
#include "emulator/stream.h"
#include "memory.h"
#include "objects.h"

namespace emulator {
namespace {

// Never destroyed. The first is the null stream.
std::vector<cudaStream_t>& streams() {
  static auto* all = new std::vector<cudaStream_t>{new CUstream_st};
  return *all;
}

bool is_blocking(cudaStream_t stream) {
  return (stream->flags & cudaStreamNonBlocking) == 0;
}

void refuse_null_stream(const char* what) {
  if (std::ranges::all_of(streams(), is_blocking)) return;
  throw Fault(std::string(what) + " on the null stream: nothing orders it with the program's non-blocking streams");
}

cudaError_t create_stream(cudaStream_t* stream, unsigned flags) {
  if (stream == nullptr || (flags & ~unsigned{cudaStreamNonBlocking}) != 0) return cudaErrorInvalidValue;
  *stream = new CUstream_st;
  (*stream)->flags = flags;
  streams().push_back(*stream);
  track(*stream, "a stream");
  return cudaSuccess;
}

// Waits for the stream's work, and for nothing else.
cudaError_t synchronize(cudaStream_t stream) {
  if (stream->recording.capture != nullptr) return refuse_in_capture(stream->recording);
  std::vector<WorkId> targets = {stream->last};
  if (is_null_stream(stream)) {
    for (const cudaStream_t other : streams()) {
      if (is_blocking(other)) targets.push_back(other->last);
    }
  }
  pending().run(targets);
  return device_state();
}

}  // namespace

cudaStream_t resolve(cudaStream_t stream) {
  if (stream == nullptr || stream == cudaStreamLegacy) return streams().front();
  return std::ranges::find(streams(), stream) == streams().end() ? nullptr : stream;
}

bool is_null_stream(cudaStream_t stream) {
  return stream == streams().front();
}

bool has_blocking_capture() {
  return std::ranges::any_of(
      streams(), [](cudaStream_t stream) { return is_blocking(stream) && stream->recording.capture != nullptr; });
}

WorkId append(cudaStream_t stream, std::function<void()> work, std::vector<WorkId> also) {
  also.push_back(stream->last);
  if (is_null_stream(stream)) {
    for (const cudaStream_t other : streams()) {
      if (is_blocking(other)) also.push_back(other->last);
    }
  } else if (is_blocking(stream)) {
    also.push_back(streams().front()->last);
  }
  return stream->last = pending().add(std::move(also), std::move(work));
}

cudaError_t submit(cudaStream_t handle, const char* what, std::function<void()> work,
                   const std::vector<const void*>& addresses) {
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (auto used = memory().allocations_at(what, addresses); !used.empty()) {
    work = [what, used = std::move(used), work = std::move(work)] {
      for (const uint64_t number : used) memory().expect_alive(what, number);
      work();
    };
  }
  if (stream->recording.capture != nullptr) return record(stream->recording, what, std::move(work));
  if (is_null_stream(stream)) refuse_null_stream(what);
  append(stream, std::move(work));
  return cudaSuccess;
}

cudaError_t enqueue(cudaStream_t stream, const char* what, std::function<void()> work,
                    const std::vector<const void*>& addresses) {
  return call([&] { return submit(stream, what, std::move(work), addresses); });
}

}  // namespace emulator

using emulator::call;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return call([&] { return emulator::create_stream(stream, cudaStreamDefault); });
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return call([&] { return emulator::create_stream(stream, flags); });
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int /*priority*/) {
  return call([&] { return emulator::create_stream(stream, flags); });
}
// Does not wait: the stream's work goes on.
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return emulator::release_call([&] {
    auto& streams = emulator::streams();
    const auto found = std::find(streams.begin() + 1, streams.end(), stream);
    if (found == streams.end()) {
      emulator::report_finding("cudaStreamDestroy: there is no such stream; destroyed before?");
      return cudaErrorInvalidResourceHandle;
    }
    if (stream->recording.capture != nullptr) return emulator::refuse_in_capture(stream->recording);
    streams.erase(found);
    emulator::forget(stream);
    delete stream;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return call([&] {
    const cudaStream_t stream = emulator::resolve(handle);
    return stream == nullptr ? cudaErrorInvalidResourceHandle : emulator::synchronize(stream);
  });
}
cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const std::lock_guard lock(emulator::runtime_mutex());
  const cudaStream_t stream = emulator::resolve(handle);
  const cudaError_t answer = call([&] {
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    return stream->recording.capture == nullptr ? cudaSuccess : emulator::refuse_in_capture(stream->recording);
  });
  if (answer != cudaSuccess || emulator::pending().done(stream->last)) return answer;
  emulator::pending().step(stream->last);
  return cudaErrorNotReady;  // no error that is remembered
}
cudaError_t cudaDeviceSynchronize() {
  return call([] {
    if (const cudaError_t refused = emulator::refuse_in_any_capture(); refused != cudaSuccess) return refused;
    emulator::pending().run_all();
    return emulator::device_state();
  });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  if (function == nullptr) return emulator::remember(cudaErrorInvalidValue);
  return emulator::enqueue(stream, "cudaLaunchHostFunc", [=] { function(data); });
}

}  // extern "C"
