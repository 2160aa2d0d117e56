#include <bit>
#include <cmath>
#include <list>
#include <mutex>
#include <vector>

#include "core/parallel_for.h"
#include "cpu/kernels.h"
#include "cpu/rows.h"
#include "cpu/simd_math.h"

namespace mhmoe::cpu {
namespace {

struct RotaryTable {
  int64_t positions, half;
  float base;
  std::vector<float> cosines, sines;  // [positions, half]
};

RotaryTable make_table(int64_t positions, int64_t half, float base) {
  RotaryTable table{positions, half, base, {}, {}};
  table.cosines.reserve(static_cast<size_t>(positions * half));
  table.sines.reserve(static_cast<size_t>(positions * half));
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double exponent = -static_cast<double>(i) / static_cast<double>(half);
      const double angle = static_cast<double>(p) * std::pow(static_cast<double>(base), exponent);
      table.cosines.push_back(static_cast<float>(std::cos(angle)));
      table.sines.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return table;
}

// Tables are kept for good and never move; their lengths double, so that growing sequences leave few behind.
const RotaryTable& table_for(int64_t positions, int64_t half, float base) {
  static std::mutex mutex;
  static std::list<RotaryTable> tables;
  const std::lock_guard lock(mutex);
  for (const RotaryTable& table : tables) {
    if (table.half == half && table.base == base && table.positions >= positions) return table;
  }
  return tables.emplace_back(make_table(std::bit_ceil<uint64_t>(positions), half, base));
}

template <class T>
void rotate(T* head, const float* cosines, const float* sines, float sign, int64_t half) {
#pragma omp simd
  for (int64_t i = 0; i < half; ++i) {
    const float a = static_cast<float>(head[i]), b = static_cast<float>(head[half + i]);
    const float sine = sign * sines[i];
    store_value(head[i], a * cosines[i] - b * sine);
    store_value(head[half + i], b * cosines[i] + a * sine);
  }
}

}  // namespace

void rotary(Context& /*ctx*/, const ops::Rotary& args) {
  const int64_t cols = args.qkv.cols();
  const int64_t half = cols / (6 * args.heads);
  const RotaryTable& table = table_for(args.first_position + args.sequence_length, half, args.base);
  const float sign = args.inverse ? -1.0f : 1.0f;
  dispatch_float(args.qkv.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* qkv = args.qkv.as<T>();
    parallel_for(args.qkv.rows(), row_grain(cols), [&](int64_t begin, int64_t end, int /*thread*/) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t position = args.first_position + r % args.sequence_length;
        const float* cosines = table.cosines.data() + position * half;
        const float* sines = table.sines.data() + position * half;
        for (int64_t h = 0; h < 2 * args.heads; ++h) {
          rotate(qkv + r * cols + h * 2 * half, cosines, sines, sign, half);
        }
      }
    });
  });
}

}  // namespace mhmoe::cpu
