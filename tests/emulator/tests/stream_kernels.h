// Small kernels for tests of streams.
#pragma once

#include <cuda_runtime_api.h>

namespace planted {

// data[i] += value, out[i] = 2 * in[i].
cudaError_t add(float* data, int count, float value, cudaStream_t stream);
cudaError_t twice(float* out, const float* in, int count, cudaStream_t stream);

}  // namespace planted
