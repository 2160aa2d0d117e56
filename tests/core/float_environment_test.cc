#include "core/float_environment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cfenv>
#include <limits>
#include <thread>
#include <vector>
#ifdef __SSE__
#include <xmmintrin.h>
#endif

#include "core/parallel_for.h"

namespace mhmoe {
namespace {

// Half of the smallest normal number is denormal, and twice that is the number again; both at run time.
bool keeps_denormals() {
  volatile float smallest = std::numeric_limits<float>::min();
  volatile float half = smallest / 2;
  return half != 0 && half * 2 == smallest;
}

TEST(FloatEnvironment, EveryThreadKeepsDenormalsAndRoundsToNearest) {
  const int before = thread_count();
  set_thread_count(4);
  std::vector<int> right(400);
  parallel_for(400, 100, [&](int64_t begin, int64_t end, int /*thread*/) {
    for (int64_t i = begin; i < end; ++i) right[i] = keeps_denormals() && std::fegetround() == FE_TONEAREST;
  });
  set_thread_count(before);
  EXPECT_EQ(std::count(right.begin(), right.end(), 1), 400);
}

TEST(FloatEnvironment, WhatALibraryChangedIsSetBack) {
#ifdef __SSE__
  constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
  _mm_setcsr(_mm_getcsr() | kFlushToZero | kDenormalsAreZero);
  EXPECT_FALSE(keeps_denormals());
#endif
  std::fesetround(FE_UPWARD);
  fix_float_environment();
  EXPECT_TRUE(keeps_denormals());
  EXPECT_EQ(std::fegetround(), FE_TONEAREST);
  bool inherited = false;
  std::thread([&] { inherited = keeps_denormals(); }).join();
  EXPECT_TRUE(inherited);
}

}  // namespace
}  // namespace mhmoe
