#include "emulator/tensor_core.h"

#include <array>
#include <bit>

#include "scheduler.h"

namespace emulator {
namespace {

struct Mma : WarpInstruction {
  float* d;
  const uint32_t* a;
  const uint32_t* b;
};

using Row8 = float __attribute__((vector_size(32)));

float low_half(uint32_t pair) {
  return std::bit_cast<float>(pair << 16);
}
float high_half(uint32_t pair) {
  return std::bit_cast<float>(pair & 0xffff0000u);
}

// Lane 4 g + t holds a's elements (g, 2t), (g, 2t + 1) of each 8x8 quarter, quarters column by column; b's (2t, g),
// (2t + 1, g) of its upper and lower half; d's (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
void multiply(WarpInstruction* const* lanes) {
  float a[16][16];
  Row8 b[16];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    const auto& own = *static_cast<const Mma*>(lanes[l]);
    const unsigned g = l / 4, t = l % 4;
    for (unsigned quarter = 0; quarter < 4; ++quarter) {
      float* pair = &a[g + 8 * (quarter % 2)][2 * t + 8 * (quarter / 2)];
      pair[0] = low_half(own.a[quarter]);
      pair[1] = high_half(own.a[quarter]);
    }
    for (unsigned half = 0; half < 2; ++half) {
      b[2 * t + 8 * half][g] = low_half(own.b[half]);
      b[2 * t + 8 * half + 1][g] = high_half(own.b[half]);
    }
  }
  Row8 product[16];
  for (unsigned i = 0; i < 16; ++i) {
    Row8 sum = {};
    for (unsigned k = 0; k < 16; ++k) sum += a[i][k] * b[k];
    product[i] = sum;
  }
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    float* d = static_cast<const Mma*>(lanes[l])->d;
    const unsigned g = l / 4, t = l % 4;
    for (unsigned i = 0; i < 4; ++i) d[i] += product[g + 8 * (i / 2)][2 * t + i % 2];
  }
}

struct LoadMatrices : WarpInstruction {
  const std::byte* row;
  const std::byte* const* rows;  // the warp's, when all lanes are there
};

std::array<std::array<const std::byte*, kWarpLanes>, kMaxWarps> warp_rows;

}  // namespace

void mma_m16n8k16_bf16(float* d, const uint32_t* a, const uint32_t* b) {
  Mma own{{multiply}, d, a, b};
  warp_instruction(own);
}

void collect_rows(WarpInstruction* const* lanes) {
  auto& rows = warp_rows[scheduler().thread() / kWarpLanes];
  for (unsigned l = 0; l < kWarpLanes; ++l) {
    auto& own = *static_cast<LoadMatrices*>(lanes[l]);
    rows[l] = own.row;
    own.rows = rows.data();
  }
}

const std::byte* const* exchange_rows(void (*instruction)(WarpInstruction* const* lanes), const void* row) {
  if (row != nullptr) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) kernel_fault("ldmatrix: a row is not aligned to 16 bytes");
    if (!is_shared_memory(row)) kernel_fault("ldmatrix: a row is not in shared memory");
  }
  LoadMatrices own{{instruction}, static_cast<const std::byte*>(row), nullptr};
  warp_instruction(own);
  return own.rows;
}

}  // namespace emulator
