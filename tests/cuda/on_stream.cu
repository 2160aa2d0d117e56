// Work on either stream of a context, which no op offers yet (context_test.cc).
#include "kernels/launch.h"
#include "kernels/vector.cuh"

namespace mhmoe::cuda {
namespace {

__global__ void add_from_kernel(float* out, const float* in, int64_t count) {
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) out[i] += in[i];
}

}  // namespace
}  // namespace mhmoe::cuda

// out += in on the stream.
extern "C" MHMOE_API void mhmoe_test_add_on_stream(mhmoe::Context& ctx, mhmoe::Stream stream, const mhmoe::Tensor& out,
                                                   const mhmoe::Tensor& in) {
  using namespace mhmoe::cuda;
  void* native = stream == mhmoe::Stream::kCompute ? ctx.compute_stream() : ctx.communication_stream();
  launch({.grid = 1, .block = 32, .stream = static_cast<cudaStream_t>(native)}, add_from_kernel, elements<float>(out),
         elements<const float>(in), out.count());
}
