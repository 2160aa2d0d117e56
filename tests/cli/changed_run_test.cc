// Going on with a run when what it is made from has changed.
#include <map>

#include "cli/program.h"

namespace mhmoe::cli {
namespace {

namespace fs = std::filesystem;

class ChangedRun : public ProgramTest {
 protected:
  void SetUp() override { ASSERT_EQ(run("train tiny.json --threads 1").code, 0); }

  // Every file of the run and what is in it.
  std::map<std::string, std::string> contents() const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "runs/tiny")) {
      if (entry.is_regular_file()) files[entry.path().string()] = read_text(entry.path());
    }
    return files;
  }
};

TEST_F(ChangedRun, ConfigurationIsRefusedWithOldAndNewAndNothingIsTouched) {
  const auto before = contents();
  struct Change {
    const char *set, *named;
  };
  for (const Change& change :
       {Change{"seed=2", "seed: 1 there, 2 here"}, Change{"train.steps=7", "train.steps: 6 there, 7 here"},
        Change{"model.moe.top_k=1", "model.moe.top_k: 2 there, 1 here"},
        Change{"train.optimizer.beta1=0.8", "train.optimizer.beta1: 0.9 there, 0.8 here"},
        Change{"train.precision=bf16", "train.precision: \"fp32\" there, \"bf16\" here"}}) {
    const Outcome outcome = run(fmt::format("train tiny.json --threads 1 --set {}", change.set));
    EXPECT_EQ(outcome.code, 78) << outcome.err;
    EXPECT_NE(lines_of(outcome.err).back().find(change.named), std::string::npos) << outcome.err;
    EXPECT_NE(outcome.err.find("--overwrite"), std::string::npos) << outcome.err;
  }
  EXPECT_EQ(contents(), before);
}

TEST_F(ChangedRun, SameTextElsewhereIsAcceptedAndOtherTextIsNot) {
  for (const char* suffix : {"bin", "idx", "json"}) {
    fs::copy(folder_ / fmt::format("train.{}", suffix), folder_ / fmt::format("moved.{}", suffix));
  }
  const auto from = [this](const char* path) {
    return run(fmt::format("train tiny.json --threads 1 --set data.train=[{{\\\"path\\\":\\\"{}\\\"}}]", path));
  };
  EXPECT_EQ(from("moved").code, 0);
  std::ofstream(folder_ / "other.txt") << std::string(3000, 'x');
  ASSERT_EQ(run("prepare --input other.txt --output other --tokenizer bytes").code, 0);
  const Outcome outcome = from("other");
  EXPECT_EQ(outcome.code, 78) << outcome.err;
  EXPECT_NE(lines_of(outcome.err).back().find("another training text"), std::string::npos) << outcome.err;
}

TEST_F(ChangedRun, WhatIsLoggedAndValidatedMayChange) {
  const Outcome outcome = run(
      "train tiny.json --threads 1 --set log.every_steps=1 --set evaluation.tokens=50 --set checkpoint.keep_last=1");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

}  // namespace
}  // namespace mhmoe::cli
