// Stands in the place of kernels/ptx.cuh when kernels are compiled for the emulator.
#pragma once

#include "emulator/ptx.h"

namespace mhmoe::cuda {

using emulator::cp_async_16;
using emulator::cp_async_commit;
using emulator::cp_async_wait;
using emulator::exp2_fast;
using emulator::ldmatrix_x2;
using emulator::ldmatrix_x2_trans;
using emulator::ldmatrix_x4;
using emulator::ldmatrix_x4_trans;
using emulator::mma_m16n8k16;

}  // namespace mhmoe::cuda
