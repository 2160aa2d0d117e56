#include "train/evaluation.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "data/shards.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

class EvaluationTest : public testing::Test {
 protected:
  EvaluationTest()
      : folder_(std::filesystem::temp_directory_path() / fmt::format("mhmoe-evaluation-{}", getpid())),
        tokenizer_(data::load_tokenizer("bytes")),
        config_(tiny_config()) {
    std::filesystem::create_directories(folder_);
    const std::string prefix = (folder_ / "set").string();
    data::ShardWriter writer(prefix, *tokenizer_);
    for (int i = 0; i < 4; ++i) {
      const std::string text = fmt::format("number {} has the square {}", i, i * i);
      std::vector<int32_t> ids;
      tokenizer_->encode(text, ids);
      writer.add_document(ids, static_cast<int64_t>(text.size()));
      targets_ += static_cast<int64_t>(text.size()) + 1;
    }
    targets_ -= 1;  // the first token is no target
    writer.finish();
    config_.model.vocab_size = tokenizer_->vocab_size();
    config_.data.validation = {{.name = "set", .path = prefix}};
    config_.evaluation.tokens = 1000;
  }
  ~EvaluationTest() override { std::filesystem::remove_all(folder_); }

  ValidationScore score(const RunConfig& config) {
    CpuTrainer run(config);
    return Evaluation(run.config, *tokenizer_).run(*run.ctx, run.trainer->task()).at(0);
  }

  ThreadCount one_thread_{1};  // a second would only wait
  std::filesystem::path folder_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
  RunConfig config_;
  int64_t targets_ = 0;
};

TEST_F(EvaluationTest, DroplessScoreDoesNotDependOnMicroBatches) {
  config_.train.micro_batch_sequences = 1;
  const ValidationScore one = score(config_);
  config_.train.micro_batch_sequences = 4;
  const ValidationScore four = score(config_);
  EXPECT_EQ(one.targets, targets_);
  EXPECT_NEAR(one.loss_dropless, four.loss_dropless, 1e-6);
}

TEST_F(EvaluationTest, AmpleCapacityIsDropless) {
  config_.model.moe.capacity_factor = 4;
  const ValidationScore ample = score(config_);
  EXPECT_NEAR(ample.loss, ample.loss_dropless, 1e-6);
  config_.model.moe.capacity_factor = 0.25;
  const ValidationScore tight = score(config_);
  EXPECT_NEAR(tight.loss_dropless, ample.loss_dropless, 1e-6);
  EXPECT_GT(std::abs(tight.loss - tight.loss_dropless), 1e-4);
}

TEST_F(EvaluationTest, ZeroWeightsScoreTheLogarithmOfTheVocabulary) {
  CpuTrainer run(config_);
  run.ctx->fill_zero(run.parameters().master());
  const ValidationScore zero = Evaluation(run.config, *tokenizer_).run(*run.ctx, run.trainer->task()).at(0);
  EXPECT_NEAR(zero.perplexity(), 257, 1e-3);
  // Each target is a byte, but for the EOS of each document; the first byte is no target.
  const auto bytes = static_cast<double>(targets_ - 4);
  EXPECT_NEAR(zero.bits_per_byte, static_cast<double>(targets_) * std::log2(257.0) / bytes, 1e-4);
}

TEST_F(EvaluationTest, TokensLimitWhatIsScored) {
  config_.evaluation.tokens = 10;
  EXPECT_EQ(score(config_).targets, 10);
}

}  // namespace
}  // namespace mhmoe::train
