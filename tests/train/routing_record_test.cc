#include "train/routing_record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "core/json.h"
#include "train/fixtures.h"

namespace mhmoe::train {
namespace {

nn::MoeConfig two_heads_of_three_experts() {
  nn::MoeConfig moe;
  moe.experts = 3;
  moe.top_k = 2;
  moe.heads = 2;
  moe.capacity_factor.reset();
  return moe;
}

// What a layer shows in one micro-batch, as Moe does.
void show(TensorObserver& recorder, int64_t layer, std::vector<int32_t> chosen, float balance_loss) {
  const std::string prefix = fmt::format("layers.{}.moe.", layer);
  recorder.record(prefix + "balance_loss", Tensor(&balance_loss, DType::kF32, {1}));
  recorder.record(prefix + "expert_index",
                  Tensor(chosen.data(), DType::kI32, {static_cast<int64_t>(chosen.size()) / 2, 2}));
}

void end_micro_batch(TensorObserver& recorder) {
  float loss = 0;
  recorder.record("losses", Tensor(&loss, DType::kF32, {1}));
}

// Two tokens of two sub-tokens with two choices each: the first token reaches experts 0, 1, 2, the second 0 and 1.
const std::vector<int32_t> kTwoTokens = {0, 1, 2, 0, 1, 0, 0, 1};

TEST(RoutingRecord, CountsChoicesByExpertHeadAndToken) {
  const nn::MoeConfig moe = two_heads_of_three_experts();
  const auto ctx = cpu::backend().create_context(0);
  RoutingRecorder recorder(*ctx, moe);
  show(recorder, 1, kTwoTokens, 1.5F);
  end_micro_batch(recorder);
  const RoutingRecord record = recorder.record(single_job());
  ASSERT_EQ(record.layers.size(), 1U);
  const LayerRouting& routing = record.layers[0];
  EXPECT_EQ(routing.layer, 1);
  EXPECT_EQ(routing.load, (std::vector<int64_t>{4, 3, 1}));
  EXPECT_EQ(routing.dropped, (std::vector<int64_t>{0, 0, 0}));
  ASSERT_EQ(routing.head_load.size(), 2U);
  EXPECT_EQ(routing.head_load[0], (std::vector<int64_t>{2, 2, 0}));
  EXPECT_EQ(routing.head_load[1], (std::vector<int64_t>{2, 1, 1}));
  EXPECT_EQ(routing.different_experts, (std::vector<int64_t>{0, 1, 1}));  // there are only 3 experts to reach
  EXPECT_DOUBLE_EQ(routing.mean_different_experts(), 2.5);
  EXPECT_DOUBLE_EQ(routing.load_max_over_mean(), 4 / (8.0 / 3));
  EXPECT_DOUBLE_EQ(routing.balance_loss, 1.5);
  EXPECT_NEAR(routing.load_entropy(), std::log(2) / 2 + 0.375 * std::log(8.0 / 3) + std::log(8) / 8, 1e-12);
}

// 4 rows, capacity 2 * ceil(4 / 3) = 4: of the first micro-batch's 8 choices of one expert 4 are dropped; the second
// drops none, and what it leaves free does not make up for that.
TEST(RoutingRecord, CapacityIsAMicroBatchesOwn) {
  nn::MoeConfig moe = two_heads_of_three_experts();
  moe.capacity_factor = 1.0;
  const auto ctx = cpu::backend().create_context(0);
  RoutingRecorder recorder(*ctx, moe);
  show(recorder, 3, std::vector<int32_t>(8, 2), 3.0F);
  end_micro_batch(recorder);
  show(recorder, 3, kTwoTokens, 1.0F);
  end_micro_batch(recorder);
  const LayerRouting routing = recorder.record(single_job()).layers.at(0);
  EXPECT_EQ(routing.load, (std::vector<int64_t>{4, 3, 9}));
  EXPECT_EQ(routing.dropped, (std::vector<int64_t>{0, 0, 4}));
  EXPECT_DOUBLE_EQ(routing.balance_loss, 2.0);
}

TEST(RoutingRecord, ARecomputedBlockCountsOnceAndOtherTensorsDoNotCount) {
  const nn::MoeConfig moe = two_heads_of_three_experts();
  const auto ctx = cpu::backend().create_context(0);
  RoutingRecorder recorder(*ctx, moe);
  for (int repeat = 0; repeat < 2; ++repeat) show(recorder, 1, kTwoTokens, 1.5F);
  float other = 9;
  for (const char* name : {"grad.layers.1.moe.balance_loss", "layers.1.ffn.expert_index", "layers.x.moe.balance_loss",
                           "layers.1.output", "layers..moe.expert_index"}) {
    recorder.record(name, Tensor(&other, DType::kF32, {1}));
  }
  end_micro_batch(recorder);
  const RoutingRecord record = recorder.record(single_job());
  ASSERT_EQ(record.layers.size(), 1U);
  EXPECT_EQ(record.layers[0].load, (std::vector<int64_t>{4, 3, 1}));
  EXPECT_DOUBLE_EQ(record.layers[0].balance_loss, 1.5);
}

TEST(RoutingRecord, TheLineHoldsEveryCount) {
  const nn::MoeConfig moe = two_heads_of_three_experts();
  const auto ctx = cpu::backend().create_context(0);
  RoutingRecorder recorder(*ctx, moe);
  show(recorder, 10, kTwoTokens, 1.5F);
  show(recorder, 9, kTwoTokens, 1.25F);
  end_micro_batch(recorder);
  const json::Value line = json::parse(recorder.record(single_job()).json_line(40), "line", ExitCode::kBadData);
  EXPECT_EQ(line.find("step")->integer, 40);
  const auto& layers = line.find("layers")->items;
  ASSERT_EQ(layers.size(), 2U);
  EXPECT_EQ(layers[0].find("layer")->integer, 9);
  EXPECT_EQ(layers[1].find("layer")->integer, 10);
  EXPECT_EQ(layers[0].find("load")->items[1].integer, 3);
  EXPECT_EQ(layers[0].find("head_load")->items[1].items[2].integer, 1);
  EXPECT_EQ(layers[0].find("different_experts")->items.size(), 3U);
  EXPECT_DOUBLE_EQ(layers[0].find("different_experts_mean")->real, 2.5);
  EXPECT_DOUBLE_EQ(layers[0].find("balance_loss")->real, 1.25);
}

// Keeps the choices and slots of every MoE layer that the recorder must agree with.
struct Choices final : TensorObserver {
  explicit Choices(Context& context) : ctx(context) {}
  void record(const std::string& name, const Tensor& tensor) override {
    std::vector<int32_t>* into = name.ends_with("expert_index") ? &chosen : name.ends_with("slot") ? &slot : nullptr;
    if (into == nullptr) return;
    const size_t before = into->size();
    into->resize(before + static_cast<size_t>(tensor.count()));
    ctx.download(into->data() + before, tensor);
  }
  Context& ctx;
  std::vector<int32_t> chosen, slot;
};

// The tiny model: one MoE layer, 2 micro-batches of 16 tokens of 2 sub-tokens with 2 of 4 experts each. Recomputation
// is on, so that the recorder sees every layer twice.
TEST(RoutingRecord, AgreesWithPlainLoopsOverAStepOfTheTinyModel) {
  const ThreadCount one_thread(1);
  RunConfig config = tiny_config();
  CpuTrainer plain(config);
  Choices choices(*plain.ctx);
  plain.ctx->set_observer(&choices);
  const MoeSummary summary = plain.trainer->step(random_batch(config, 3)).moe;
  config.train.recompute = Recompute::kBlock;
  CpuTrainer recorded(config);
  RoutingRecorder recorder(*recorded.ctx, recorded.config.model.moe);
  ObserverPair pair(nullptr, &recorder);
  recorded.ctx->set_observer(&pair);
  recorded.trainer->step(random_batch(config, 3));
  const LayerRouting routing = recorder.record(single_job()).layers.at(0);

  ASSERT_EQ(choices.chosen.size(), 2U * 16 * 2 * 2);
  const int64_t capacity = 2 * (32 / 4);
  std::vector<int64_t> load(4), dropped(4), different(4);
  std::vector<std::vector<int64_t>> head_load(2, load);
  for (size_t token = 0; token < 32; ++token) {
    std::set<int32_t> reached;
    for (size_t i = 0; i < 4; ++i) {
      const auto expert = static_cast<size_t>(choices.chosen[token * 4 + i]);
      ++load[expert];
      ++head_load[i / 2][expert];
      if (choices.slot[token * 4 + i] >= capacity) ++dropped[expert];
      reached.insert(choices.chosen[token * 4 + i]);
    }
    ++different[reached.size() - 1];
  }
  EXPECT_GT(std::accumulate(dropped.begin(), dropped.end(), int64_t{0}), 0);
  EXPECT_EQ(routing.layer, 1);
  EXPECT_EQ(routing.load, load);
  EXPECT_EQ(routing.dropped, dropped);
  EXPECT_EQ(routing.head_load, head_load);
  EXPECT_EQ(routing.different_experts, different);
  EXPECT_NEAR(routing.balance_loss, summary.balance_loss, 1e-6);
}

TEST(RoutingRecord, APairShowsEverythingToBoth) {
  const nn::MoeConfig moe = two_heads_of_three_experts();
  const auto ctx = cpu::backend().create_context(0);
  RoutingRecorder first(*ctx, moe), second(*ctx, moe);
  ObserverPair pair(&first, &second);
  show(pair, 1, kTwoTokens, 1.5F);
  end_micro_batch(pair);
  EXPECT_EQ(first.record(single_job()).json_line(1), second.record(single_job()).json_line(1));
  EXPECT_EQ(first.record(single_job()).layers.size(), 1U);
}

}  // namespace
}  // namespace mhmoe::train
