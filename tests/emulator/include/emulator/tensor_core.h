// Tensor cores' instructions, with the layouts of registers that the PTX ISA gives. A warp's lanes hand over where
// their registers lie; the last lane to arrive does the work of all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "emulator/engine.h"

namespace emulator {

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32, with d as its addend.
void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b);

// The addresses that a warp's lanes bring to ldmatrix; valid until the warp's next one.
const std::byte* const* exchange_rows(void (*instruction)(WarpInstruction* const* lanes), const void* row);
void collect_rows(WarpInstruction* const* lanes);

// 16-bit element of a row of a matrix.
inline uint32_t matrix_element(const std::byte* row, unsigned column) {
  return reinterpret_cast<const uint16_t*>(row)[column];
}

// ldmatrix.sync.aligned.m8n8 of 2 or 4 matrices. Every lane reads what it gets itself, in the kernel's own translation
// unit, so that sanitizers see who reads.
template <int kMatrices, bool kTranspose>
void load_matrices(uint32_t (&r)[kMatrices], const void* row) {
  static_assert(kMatrices == 2 || kMatrices == 4);
  const unsigned group = lane() / 4, pair = lane() % 4;
  const auto collect = [](WarpInstruction* const* lanes) { collect_rows(lanes); };  // each form is another instruction
  const auto* rows = exchange_rows(collect, lane() < 8 * kMatrices ? row : nullptr);
  for (unsigned m = 0; m < kMatrices; ++m, rows += 8) {
    if constexpr (kTranspose) {
      r[m] = matrix_element(rows[2 * pair], group) | matrix_element(rows[2 * pair + 1], group) << 16;
    } else {
      r[m] = matrix_element(rows[group], 2 * pair) | matrix_element(rows[group], 2 * pair + 1) << 16;
    }
  }
}

}  // namespace emulator
