// Inputs that fuzzing began with or once broke on: each must be read or refused, no promise broken.
#include <gtest/gtest.h>

#include <filesystem>

#include "core/file.h"
#include "fuzz/targets.h"

namespace mhmoe::fuzz {
namespace {

namespace fs = std::filesystem;

TEST(Fuzz, EveryKeptInputIsReadOrRefused) {
  for (const Named& target : kTargets) {
    int inputs = 0;
    for (const auto& entry : fs::directory_iterator(fs::path(MHMOE_SOURCE_DIR) / "tests/fuzz/corpus" / target.name)) {
      SCOPED_TRACE(entry.path().string());
      EXPECT_NO_THROW(target.run(InputFile(entry.path().string()).read_whole()));
      ++inputs;
    }
    EXPECT_GE(inputs, 3) << target.name;
  }
}

// Inputs of the corpus that are meant to be accepted are: otherwise fuzzing would see nothing but refusals.
TEST(Fuzz, PromisesAreChecked) {
  EXPECT_THROW(require(false, "x"), std::logic_error);
  EXPECT_TRUE(accepts([] {}));
  EXPECT_FALSE(accepts([] { fail(ExitCode::kBadData, "x"); }));
  EXPECT_THROW(accepts([] { fail(ExitCode::kInternal, "x"); }), std::logic_error);
}

}  // namespace
}  // namespace mhmoe::fuzz
