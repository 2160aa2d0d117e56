// Products of tiles, level by level: tiles_check.cc.
#include <gtest/gtest.h>

#include "cpu/levels.h"

#define LEVEL(name) extern "C" void mhmoe_check_tiles_##name(std::string& wrong);
MHMOE_CPU_LEVELS
#undef LEVEL

namespace mhmoe {
namespace {

struct LevelTiles {
  std::string level;
  void (*check)(std::string&);
};

void PrintTo(const LevelTiles& tiles, std::ostream* out) {
  *out << tiles.level;
}

std::vector<LevelTiles> all_levels() {
#define LEVEL(name) LevelTiles{#name, mhmoe_check_tiles_##name},
  return {MHMOE_CPU_LEVELS};
#undef LEVEL
}

class Tiles : public testing::TestWithParam<LevelTiles> {};

TEST_P(Tiles, MultiplyAsPlainLoopsDoAndAlikeAtEverySize) {
  cpu::level();  // oneDNN is held to it before anything asks what oneDNN has
  for (const cpu::KernelLevel* level : cpu::levels()) {
    if (level->name != GetParam().level) continue;
    // In words of its own: those of missing_instructions would have ctest skip the whole program.
    if (!cpu::missing_instructions(*level, cpu::has_instructions).empty()) {
      GTEST_SKIP() << "skipped: tiles for " << level->name << " cannot run here, or MHMOE_CPU_ISA keeps them from it";
    }
  }
  std::string wrong;
  GetParam().check(wrong);
  EXPECT_EQ(wrong, "");
}

INSTANTIATE_TEST_SUITE_P(Levels, Tiles, testing::ValuesIn(all_levels()),
                         [](const auto& info) { return info.param.level; });

}  // namespace
}  // namespace mhmoe
