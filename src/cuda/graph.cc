#include "cuda/graph.h"

namespace mhmoe::cuda {
namespace {

class GraphWork final : public RecordedWork {
 public:
  GraphWork(GraphExecHandle graph, cudaStream_t stream) : graph_(std::move(graph)), stream_(stream) {}
  void replay() override { MHMOE_CUDA_CHECK(cudaGraphLaunch(graph_.get(), stream_)); }

 private:
  GraphExecHandle graph_;
  cudaStream_t stream_;
};

// Leaves the stream as it was before the capture.
void abandon_capture(cudaStream_t stream) {
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  const GraphHandle partial(graph);
  cudaGetLastError();
}

}  // namespace

// Thread-local: calls that would break the capture are refused on this thread, other threads are left alone.
std::unique_ptr<RecordedWork> capture(cudaStream_t stream, const std::function<void()>& work) {
  MHMOE_CUDA_CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  try {
    work();
  } catch (...) {
    abandon_capture(stream);
    throw;
  }
  cudaGraph_t captured = nullptr;
  MHMOE_CUDA_CHECK(cudaStreamEndCapture(stream, &captured));
  const GraphHandle graph(captured);
  cudaGraphExec_t executable = nullptr;
  MHMOE_CUDA_CHECK(cudaGraphInstantiate(&executable, graph.get(), 0));
  return std::make_unique<GraphWork>(GraphExecHandle(executable), stream);
}

}  // namespace mhmoe::cuda
