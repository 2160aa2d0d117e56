#include "capture.h"

#include <algorithm>
#include <utility>

#include "call.h"
#include "objects.h"
#include "streams.h"

// What cudaStreamEndCapture made.
struct CUgraph_st {
  std::shared_ptr<const emulator::GraphNodes> nodes;
};

struct CUgraphExec_st {
  std::shared_ptr<const emulator::GraphNodes> nodes;
  emulator::WorkId last = 0;  // its launches run one after another
};

namespace emulator {
namespace {

std::vector<std::shared_ptr<Capture>>& captures() {
  static auto* all = new std::vector<std::shared_ptr<Capture>>;
  return *all;
}

cudaError_t begin(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const cudaStream_t stream = resolve(handle);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (is_null_stream(stream)) return cudaErrorStreamCaptureUnsupported;
  if (stream->recording.capture != nullptr) return cudaErrorIllegalState;
  if (mode != cudaStreamCaptureModeGlobal && mode != cudaStreamCaptureModeThreadLocal &&
      mode != cudaStreamCaptureModeRelaxed) {
    return cudaErrorInvalidValue;
  }
  auto capture = std::make_shared<Capture>();
  capture->origin = stream;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  capture->streams = {stream};
  stream->recording = {capture, {}};
  captures().push_back(std::move(capture));
  return cudaSuccess;
}

// Whether all recorded work comes before the end of the stream that the capture began on.
bool all_joined(const Capture& capture, const std::vector<size_t>& last) {
  std::vector<bool> reached(capture.nodes.size());
  std::vector<size_t> open = last;
  while (!open.empty()) {
    const size_t node = open.back();
    open.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    open.insert(open.end(), capture.nodes[node].after.begin(), capture.nodes[node].after.end());
  }
  return std::ranges::all_of(reached, [](bool is_reached) { return is_reached; });
}

cudaError_t end(cudaStream_t stream, cudaGraph_t* graph) {
  if (graph == nullptr) return cudaErrorInvalidValue;
  *graph = nullptr;
  if (resolve(stream) == nullptr) return cudaErrorInvalidResourceHandle;
  const std::shared_ptr<Capture> capture = resolve(stream)->recording.capture;
  if (capture == nullptr) return cudaErrorIllegalState;
  if (capture->origin != stream) {
    capture->valid = false;
    return cudaErrorStreamCaptureUnmatched;
  }
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id()) {
    return cudaErrorStreamCaptureWrongThread;
  }
  const std::vector<size_t> last = stream->recording.last;
  for (const cudaStream_t recording : capture->streams) recording->recording = {};
  capture->ended = true;
  std::erase(captures(), capture);
  if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
  if (!all_joined(*capture, last)) return cudaErrorStreamCaptureUnjoined;
  *graph = new CUgraph_st{std::make_shared<const GraphNodes>(std::move(capture->nodes))};
  track(*graph, "a graph");
  return cudaSuccess;
}

cudaError_t instantiate(cudaGraphExec_t* exec, cudaGraph_t graph) {
  if (exec == nullptr || !alive(graph)) return cudaErrorInvalidValue;
  *exec = new CUgraphExec_st{graph->nodes};
  track(*exec, "an executable graph");
  return cudaSuccess;
}

// Every node is a piece of work of its own, so that it may run in any order that the graph permits.
cudaError_t launch_graph(cudaGraphExec_t exec, cudaStream_t handle) {
  const cudaStream_t stream = resolve(handle);
  if (!alive(exec)) return cudaErrorInvalidValue;
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (stream->recording.capture != nullptr) return refuse_in_capture(stream->recording);
  const WorkId begin = append(stream, {}, {exec->last});
  std::vector<WorkId> ids;
  for (size_t i = 0; i < exec->nodes->size(); ++i) {
    std::vector<WorkId> after = {begin};
    for (const size_t before : (*exec->nodes)[i].after) after.push_back(ids[before]);
    ids.push_back(pending().add(std::move(after), [nodes = exec->nodes, i] { (*nodes)[i].run(); }));
  }
  exec->last = append(stream, {}, std::move(ids));
  return cudaSuccess;
}

template <class Handle>
cudaError_t destroy(const char* call, Handle handle) {
  if (!forget(handle)) {
    report_finding(std::string(call) + ": there is no such graph; destroyed before?");
    return cudaErrorInvalidValue;
  }
  delete handle;
  return cudaSuccess;
}

}  // namespace

cudaError_t record(CapturePoint& at, const char* what, std::function<void()> run) {
  Capture& capture = *at.capture;
  if (!capture.valid) return cudaErrorStreamCaptureInvalidated;
  capture.nodes.push_back({what, std::move(run), std::move(at.last)});
  at.last = {capture.nodes.size() - 1};
  return cudaSuccess;
}

cudaError_t join(cudaStream_t stream, const CapturePoint& event) {
  const auto& capture = event.capture;
  auto& own = stream->recording;
  if (capture->ended) return cudaErrorCapturedEvent;
  if (!capture->valid) return cudaErrorStreamCaptureInvalidated;
  if (is_null_stream(stream)) return refuse_in_capture(event);
  if (own.capture == nullptr) {
    own.capture = capture;
    capture->streams.push_back(stream);
  } else if (own.capture != capture) {
    own.capture->valid = capture->valid = false;
    return cudaErrorStreamCaptureMerge;
  }
  own.last.insert(own.last.end(), event.last.begin(), event.last.end());
  std::ranges::sort(own.last);
  own.last.erase(std::unique(own.last.begin(), own.last.end()), own.last.end());
  return cudaSuccess;
}

cudaError_t refuse_in_capture(const CapturePoint& at) {
  at.capture->valid = false;
  return cudaErrorStreamCaptureUnsupported;
}

cudaError_t refuse_in_any_capture() {
  for (const auto& capture : captures()) capture->valid = false;
  return captures().empty() ? cudaSuccess : cudaErrorStreamCaptureUnsupported;
}

cudaError_t refuse_unsafe_call() {
  cudaError_t code = cudaSuccess;
  for (const auto& capture : captures()) {
    const bool here = capture->thread == std::this_thread::get_id();
    if (capture->mode == cudaStreamCaptureModeGlobal || (capture->mode == cudaStreamCaptureModeThreadLocal && here)) {
      capture->valid = false;
      code = cudaErrorStreamCaptureUnsupported;
    }
  }
  return code;
}

}  // namespace emulator

using emulator::call;

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call([&] { return emulator::begin(stream, mode); });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call([&] { return emulator::end(stream, graph); });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  return call([&] {
    const cudaStream_t stream = emulator::resolve(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (status == nullptr) return cudaErrorInvalidValue;
    const auto& capture = stream->recording.capture;
    *status = capture == nullptr ? cudaStreamCaptureStatusNone
              : capture->valid   ? cudaStreamCaptureStatusActive
                                 : cudaStreamCaptureStatusInvalidated;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long /*flags*/) {
  return call([&] { return emulator::instantiate(exec, graph); });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  return call([&] { return emulator::launch_graph(exec, stream); });
}
// With room for all of them or none: only their number is of use here.
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
  return call([&] {
    if (!emulator::alive(graph) || count == nullptr) return cudaErrorInvalidValue;
    if (nodes != nullptr) return cudaErrorNotSupported;
    *count = graph->nodes->size();
    return cudaSuccess;
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  return emulator::release_call([&] { return emulator::destroy("cudaGraphExecDestroy", exec); });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return emulator::release_call([&] { return emulator::destroy("cudaGraphDestroy", graph); });
}

}  // extern "C"
