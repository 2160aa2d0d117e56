// What every lane of a warp gets from the operations of a warp.
#pragma once

#include <cuda_runtime_api.h>

namespace planted {

enum WarpResult {
  kShuffle,
  kShuffleXor,
  kShuffleUp,
  kShuffleDown,
  kBallot,
  kAny,
  kAll,
  kMatchAny,
  kMatchAll,
  kReduceAdd,
  kReduceMin,
  kReduceMax,
  kReduceOr,
  kWarpResults
};

// out: [kWarpResults, 32]. Lane l brings (l * 7) % 5 - 2; the lanes of the mask take part, segments have `width` lanes.
cudaError_t run_warp_operations(int* out, unsigned mask, int width);

}  // namespace planted
