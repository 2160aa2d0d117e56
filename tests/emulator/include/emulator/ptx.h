// Instructions that CUDA C++ has no name for, as functions: give yours, on inline assembly, the same signatures.
#pragma once

#include <cmath>
#include <limits>

#include "emulator/async_copy.h"
#include "emulator/tensor_core.h"

namespace emulator {

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  mma_m16n8k16_bf16(d, a, b);
}

inline void ldmatrix_x4(uint32_t (&r)[4], const void* shared_row) {
  load_matrices<4, false>(r, shared_row);
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* shared_row) {
  load_matrices<4, true>(r, shared_row);
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* shared_row) {
  load_matrices<2, false>(r, shared_row);
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* shared_row) {
  load_matrices<2, true>(r, shared_row);
}

inline void cp_async_16(void* shared, const void* global, bool valid) {
  begin_copy_16(shared, global, valid);
}
inline void cp_async_commit() {
  commit_copies();
}
template <int kPending>
void cp_async_wait() {
  wait_for_copies(kPending);
}

// ex2.approx.ftz: results below the smallest normal number are 0.
inline float exp2_fast(float x) {
  const float y = std::exp2(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;
}

}  // namespace emulator
