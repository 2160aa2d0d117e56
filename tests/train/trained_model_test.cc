// Models in files of their own, which no checksum vouches for.
#include "train/trained_model.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>

#include "checkpoint_fixture.h"
#include "nn/parameter_file.h"
#include "train/config.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

class TrainedModelTest : public CheckpointTest {
 protected:
  TrainedModelTest() : file_((root_ / "model.safetensors").string()) {
    RunConfig config = tiny_config();
    config.name = "tiny";
    config.data.tokenizer = "bytes";
    config.model.vocab_size = data::load_tokenizer("bytes")->vocab_size();
    CausalLm model(config.model, false);
    model.parameters().allocate(*ctx_, DType::kF32, false);
    std::vector<float> values(static_cast<size_t>(model.parameters().parameter_count()), 0.5f);
    write_safetensors(file_, nn::name_parts(model.parameters(), values.data()), {{"config", resolved_config(config)}});
  }

  // The last value in the file, changed in place.
  void change_last(float value) const {
    std::fstream(file_, std::ios::in | std::ios::out | std::ios::binary)
        .seekp(-static_cast<std::streamoff>(sizeof(value)), std::ios::end)
        .write(reinterpret_cast<const char*>(&value), sizeof(value));
    fs::last_write_time(file_, fs::last_write_time(file_) + std::chrono::seconds(1));  // clocks may be coarse
  }
  Thrown loading(TrainedModel& model) const {
    return thrown_by([&] { model.load(*ctx_, cpu::backend()); });
  }

  std::unique_ptr<Context> ctx_ = cpu::backend().create_context(0);
  std::string file_;
};

// What is judged is what was read to be used, not an earlier reading.
TEST_F(TrainedModelTest, WeightsAreJudgedAsTheyAreLoaded) {
  const std::string last = SafetensorsReader(file_).names().back();
  TrainedModel good(file_, {}), bad(file_, {});
  EXPECT_EQ(loading(good).message, "");
  change_last(std::nanf(""));
  const Thrown thrown = loading(bad);
  EXPECT_EQ(thrown.code, ExitCode::kBadData);
  EXPECT_TRUE(thrown.says(fmt::format("tensor {} holds values that are not finite", last))) << thrown.message;
}

TEST_F(TrainedModelTest, AFileThatHasChangedIsNotUsed) {
  TrainedModel model(file_, {});
  change_last(0.25f);
  const Thrown thrown = loading(model);
  EXPECT_EQ(thrown.code, ExitCode::kIo);
  EXPECT_TRUE(thrown.says("changed while it was being read")) << thrown.message;
}

}  // namespace
}  // namespace mhmoe::train
