#include "warp.h"

namespace planted {
namespace {

__global__ void warp_kernel(int* out, unsigned mask, int width) {
  const int lane = static_cast<int>(threadIdx.x), value = lane * 7 % 5 - 2;
  if ((mask >> lane & 1) == 0) return;
  const auto store = [&](WarpResult result, int found) { out[result * 32 + lane] = found; };
  store(kShuffle, __shfl_sync(mask, value, 1, width));
  store(kShuffleXor, __shfl_xor_sync(mask, value, 1, width));
  store(kShuffleUp, __shfl_up_sync(mask, value, 2, width));
  store(kShuffleDown, __shfl_down_sync(mask, value, 2, width));
  store(kBallot, static_cast<int>(__ballot_sync(mask, value > 0)));
  store(kAny, __any_sync(mask, value == 2));
  store(kAll, __all_sync(mask, value < 2));
  store(kMatchAny, static_cast<int>(__match_any_sync(mask, value)));
  int all = 0;
  store(kMatchAll, static_cast<int>(__match_all_sync(mask, value >= -2, &all)) * all);
  store(kReduceAdd, __reduce_add_sync(mask, value));
  store(kReduceMin, __reduce_min_sync(mask, value));
  store(kReduceMax, __reduce_max_sync(mask, value));
  store(kReduceOr, static_cast<int>(__reduce_or_sync(mask, static_cast<unsigned>(value))));
}

}  // namespace

cudaError_t run_warp_operations(int* out, unsigned mask, int width) {
  cudaLaunchConfig_t config{};
  config.gridDim = 1;
  config.blockDim = 32;
  return cudaLaunchKernelEx(&config, warp_kernel, out, mask, width);
}

}  // namespace planted
