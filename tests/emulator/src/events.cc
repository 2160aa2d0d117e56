// Events: points in streams that the host, or other streams, wait for.
#include <cuda_runtime_api.h>

#include <memory>

#include "call.h"
#include "objects.h"
#include "streams.h"

namespace emulator {
namespace {

cudaError_t create_event(cudaEvent_t* event, unsigned flags) {
  constexpr unsigned kKnown = cudaEventBlockingSync | cudaEventDisableTiming;
  if (event == nullptr || (flags & ~kKnown) != 0) return cudaErrorInvalidValue;
  *event = new CUevent_st;
  (*event)->flags = flags;
  track(*event, "an event");
  return cudaSuccess;
}

cudaError_t record_event(cudaEvent_t event, cudaStream_t handle) {
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr || !alive(event)) return cudaErrorInvalidResourceHandle;
  if (stream->recording.capture != nullptr) {
    if (!stream->recording.capture->valid) return cudaErrorStreamCaptureInvalidated;
    event->recording = stream->recording;
    return cudaSuccess;
  }
  event->recording = {};
  event->time = std::make_shared<std::optional<std::chrono::steady_clock::time_point>>();
  event->work = append(stream, [time = event->time] { *time = std::chrono::steady_clock::now(); });
  return cudaSuccess;
}

cudaError_t wait_for_event(cudaStream_t handle, cudaEvent_t event, unsigned flags) {
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr || !alive(event)) return cudaErrorInvalidResourceHandle;
  if (flags != cudaEventWaitDefault) return cudaErrorNotSupported;
  if (event->recording.capture != nullptr) return join(stream, event->recording);
  if (event->time == nullptr) return cudaSuccess;  // an event that was never recorded has happened
  if (stream->recording.capture != nullptr) {
    stream->recording.capture->valid = false;
    return cudaErrorStreamCaptureIsolation;
  }
  append(stream, {}, {event->work});
  return cudaSuccess;
}

cudaError_t check_uncaptured(cudaEvent_t event) {
  if (!alive(event)) return cudaErrorInvalidResourceHandle;
  if (event->recording.capture == nullptr) return cudaSuccess;
  event->recording.capture->valid = false;
  return cudaErrorCapturedEvent;
}

cudaError_t elapsed(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  for (const cudaEvent_t event : {start, end}) {
    if (const cudaError_t code = check_uncaptured(event); code != cudaSuccess) return code;
    if ((event->flags & cudaEventDisableTiming) != 0 || event->time == nullptr) return cudaErrorInvalidResourceHandle;
  }
  if (milliseconds == nullptr) return cudaErrorInvalidValue;
  if (!start->time->has_value() || !end->time->has_value()) return cudaErrorNotReady;
  *milliseconds = std::chrono::duration<float, std::milli>(**end->time - **start->time).count();
  return cudaSuccess;
}

}  // namespace
}  // namespace emulator

using emulator::call;

extern "C" {

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return call([&] { return emulator::create_event(event, cudaEventDefault); });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return call([&] { return emulator::create_event(event, flags); });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return emulator::release_call([&] {
    if (!emulator::forget(event)) {
      emulator::report_finding("cudaEventDestroy: there is no such event; destroyed before?");
      return cudaErrorInvalidResourceHandle;
    }
    delete event;
    return cudaSuccess;
  });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call([&] { return emulator::record_event(event, stream); });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
  return call([&] { return emulator::wait_for_event(stream, event, flags); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return call([&] {
    if (const cudaError_t code = emulator::check_uncaptured(event); code != cudaSuccess) return code;
    emulator::pending().run({&event->work, 1});
    return emulator::device_state();
  });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  const std::lock_guard lock(emulator::runtime_mutex());
  const cudaError_t answer = call([&] { return emulator::check_uncaptured(event); });
  if (answer != cudaSuccess || emulator::pending().done(event->work)) return answer;
  emulator::pending().step(event->work);
  return cudaErrorNotReady;  // no error that is remembered
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return call([&] { return emulator::elapsed(milliseconds, start, end); });
}

}  // extern "C"
