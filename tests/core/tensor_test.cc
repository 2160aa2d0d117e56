#include "core/tensor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "core/arena.h"
#include "core/philox.h"
#include "device/context.h"

namespace mhmoe {
namespace {

TEST(Bfloat16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(static_cast<float>(bfloat16(1.0f)), 1.0f);
  EXPECT_EQ(bfloat16(std::bit_cast<float>(0x3f808000u)).bits, 0x3f80);  // halfway, even below
  EXPECT_EQ(bfloat16(std::bit_cast<float>(0x3f818000u)).bits, 0x3f82);  // halfway, even above
  EXPECT_NE(static_cast<float>(bfloat16(std::numeric_limits<float>::quiet_NaN())),
            static_cast<float>(bfloat16(std::numeric_limits<float>::quiet_NaN())));
  EXPECT_EQ(static_cast<float>(bfloat16(std::numeric_limits<float>::infinity())),
            std::numeric_limits<float>::infinity());
}

TEST(Tensor, ViewsShareMemoryAndCheckShapes) {
  std::vector<float> memory(24);
  const Tensor t(memory.data(), DType::kF32, {2, 3, 4});
  EXPECT_EQ(t.rows(), 6);
  EXPECT_EQ(t.view({12, 2}).data, t.data);
  EXPECT_EQ(t.slice_rows(2, 3).data, memory.data() + 8);
  EXPECT_EQ(t.slice(5, 7).data, memory.data() + 5);
  EXPECT_EQ(t.select(1).data, memory.data() + 12);
  EXPECT_EQ(t.describe(), "f32[2, 3, 4]");
  EXPECT_THROW(t.view({5, 5}), Error);
  EXPECT_THROW(t.slice_rows(5, 2), Error);
  EXPECT_THROW(t.slice(20, 5), Error);
  EXPECT_THROW(t.as<int32_t>(), Error);
}

TEST(Arena, ScopesGiveMemoryBackAndNewBlocksMoveNothing) {
  const auto ctx = make_sizing_context(DeviceKind::kCpu, nullptr);
  Arena& arena = ctx->step();
  const Tensor kept = arena.allocate("kept", DType::kF32, {1 << 18});
  void* second = nullptr;
  {
    const ArenaScope scope(arena);
    second = arena.allocate("scratch", DType::kF32, {1 << 20}).data;
    EXPECT_EQ(arena.used_bytes(), size_t{5} << 20);
  }
  EXPECT_EQ(arena.used_bytes(), size_t{1} << 20);
  EXPECT_EQ(arena.allocate("again", DType::kF32, {1 << 20}).data, second);
  EXPECT_EQ(arena.peak_by_name().at("scratch"), size_t{4} << 20);
  EXPECT_NE(kept.data, second);
  try {
    arena.check_empty();
    FAIL() << "a leak went unnoticed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("kept again"), std::string::npos) << error.what();
  }
}

// What was recorded with an arena's addresses is good as long as its generation.
TEST(Arena, ItsGenerationChangesWhenABlockGoes) {
  const auto ctx = make_sizing_context(DeviceKind::kCpu, nullptr);
  Arena& arena = ctx->step();
  arena.reserve(1 << 10);
  const uint64_t first = arena.generation();
  {
    const ArenaScope scope(arena);
    arena.allocate("small", DType::kF32, {16});
    arena.allocate("one more block", DType::kF32, {1 << 20});
  }
  EXPECT_EQ(arena.generation(), first);
  arena.merge_blocks();
  const uint64_t merged = arena.generation();
  EXPECT_NE(merged, first);
  arena.merge_blocks();  // it is one block
  EXPECT_EQ(arena.generation(), merged);
}

TEST(Arena, WhileFrozenItsBlocksStayAsTheyAre) {
  const auto ctx = make_sizing_context(DeviceKind::kCpu, nullptr);
  Arena& arena = ctx->step();
  arena.reserve(1 << 10);
  arena.freeze();
  arena.freeze();
  {
    const ArenaScope scope(arena);
    arena.allocate("fits", DType::kF32, {16});
    EXPECT_THROW(arena.allocate("does not", DType::kF32, {1 << 20}), Error);
  }
  arena.thaw();
  EXPECT_THROW(arena.reserve(1 << 20), Error);
  arena.thaw();
  const ArenaScope scope(arena);
  EXPECT_NO_THROW(arena.allocate("does now", DType::kF32, {1 << 20}));
}

// The known answers that Random123 publishes for philox4x32 with 10 rounds.
TEST(Philox, MatchesPublishedVectors) {
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}), (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, StreamsAreRepeatableIndependentAndNormal) {
  const Philox a(1, "layers.0.ffn.up.weight"), b(1, "layers.1.ffn.up.weight"), a2(1, "layers.0.ffn.up.weight");
  double mean = 0, square = 0, cross = 0;
  const int n = 200000;
  for (int i = 0; i < n; ++i) {
    const double x = a.normal(i), y = b.normal(i);
    EXPECT_EQ(a.normal(i), a2.normal(i));
    mean += x, square += x * x, cross += x * y;
  }
  EXPECT_NEAR(mean / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(square / n, 1, 8 / std::sqrt(n));
  EXPECT_NEAR(cross / n, 0, 5 / std::sqrt(n));
}

}  // namespace
}  // namespace mhmoe
