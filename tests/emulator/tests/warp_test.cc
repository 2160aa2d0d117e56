// Operations of a warp, against plain loops over its lanes.
#include "warp.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "environment.h"

namespace planted {
namespace {

int brought(int lane) {
  return lane * 7 % 5 - 2;
}

using Results = std::array<int, kWarpResults * 32>;

// The mask is a whole number of segments, so that no shuffle reads a lane outside it.
Results expected(unsigned mask, int width) {
  Results out{};
  const auto in_mask = [mask](int lane) { return (mask >> lane & 1) != 0; };
  unsigned ballot = 0, bits = 0;
  int sum = 0, low = 100, high = -100;
  for (int l = 0; l < 32; ++l) {
    if (!in_mask(l)) continue;
    const int value = brought(l);
    if (value > 0) ballot |= 1u << l;
    bits |= static_cast<unsigned>(value);
    sum += value;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  for (int l = 0; l < 32; ++l) {
    if (!in_mask(l)) continue;
    const int first = l / width * width, place = l - first;
    unsigned equal = 0;
    for (int other = 0; other < 32; ++other) {
      if (in_mask(other) && brought(other) == brought(l)) equal |= 1u << other;
    }
    const std::array<int, kWarpResults> own = {brought(first + 1),
                                               brought(l ^ 1),
                                               brought(place < 2 ? l : l - 2),
                                               brought(place + 2 < width ? l + 2 : l),
                                               static_cast<int>(ballot),
                                               high == 2 ? 1 : 0,
                                               high < 2 ? 1 : 0,
                                               static_cast<int>(equal),
                                               static_cast<int>(mask),
                                               sum,
                                               low,
                                               high,
                                               static_cast<int>(bits)};
    for (size_t r = 0; r < own.size(); ++r) out[r * 32 + static_cast<size_t>(l)] = own[r];
  }
  return out;
}

TEST(Warp, OperationsOfEveryMaskAndSegmentInEveryOrder) {
  for (const char* order : kOrders) {
    const WithVariable with_order("EMULATOR_ORDER", order);
    for (const unsigned mask : {0xffffffffu, 0x0000ff00u, 0xffff0000u, 0x00f0000fu}) {
      for (const int width : {32, 16, 8, 4}) {
        if ((width == 32 && mask != 0xffffffffu) || (width == 16 && mask != 0xffffffffu && mask != 0xffff0000u))
          continue;
        if (width == 8 && mask == 0x00f0000fu) continue;
        Results out{};
        EXPECT_EQ(run_warp_operations(out.data(), mask, width), cudaSuccess);
        EXPECT_EQ(out, expected(mask, width)) << order << " mask " << std::hex << mask << " width " << width;
      }
    }
  }
}

}  // namespace
}  // namespace planted
