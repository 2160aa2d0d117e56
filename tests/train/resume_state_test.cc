#include "train/resume_state.h"

#include <gtest/gtest.h>

#include <cmath>

namespace mhmoe::train {
namespace {

// Every field with a value of its own.
ResumeState full_state() {
  ResumeState state;
  state.trainer.steps_done = 12;
  state.trainer.updates = 11;
  state.trainer.refused_in_a_row = 1;
  state.trainer.spike_guard = json::Value::object();
  state.hash = 0xfedcba9876543210;
  state.refused_steps = 3;
  state.window = {.last_loss = 1.0 / 3,
                  .last_gradient_norm = 1e-300,
                  .last_learning_rate = 6e-4,
                  .last_moe = {1.1, 1.2, 1.3, 1.4},
                  .averaged = 2,
                  .loss = 2.0 / 3,
                  .moe = {2.1, 2.2, 2.3, 2.4},
                  .timed_tokens = 4096,
                  .timed_seconds = 0.1};
  state.training_seconds = 77.7;
  state.validation = {{.name = "a", .targets = 5, .loss = 3.5, .loss_dropless = 3.25, .bits_per_byte = 1.75}};
  state.file_bytes = {{"metrics.jsonl", 1234}, {"tensorboard", 99}};
  state.origin = {.data = "d", .tokenizer = "t", .compute = "f32"};
  state.parent = "run@4";
  state.device = "cpu";
  state.threads = 2;
  return state;
}

json::Value through_text(const json::Value& value) {
  return json::parse(json::to_text(value), "state.json", ExitCode::kBadData);
}

TEST(ResumeState, GoesThroughJsonUnchanged) {
  const json::Value first = to_json(full_state());
  const ResumeState read = read_resume_state(through_text(first));
  EXPECT_EQ(json::to_line(to_json(read)), json::to_line(first));
  EXPECT_EQ(read.hash, 0xfedcba9876543210);
  EXPECT_EQ(read.window.last_loss, 1.0 / 3);
  EXPECT_EQ(read.window.last_gradient_norm, 1e-300);
  EXPECT_EQ(read.window.moe.expert_activation, 2.4);
  EXPECT_EQ(read.validation.at(0).loss_dropless, 3.25);
  EXPECT_EQ(read.file_bytes.at("tensorboard"), 99);
}

TEST(ResumeState, ARefusedStepsNanComesBackAsNan) {
  ResumeState state = full_state();
  state.window.last_loss = std::nan("");
  EXPECT_TRUE(std::isnan(read_resume_state(through_text(to_json(state))).window.last_loss));
}

TEST(ResumeState, EveryKeyIsNeeded) {
  const json::Value whole = to_json(full_state());
  for (size_t i = 0; i < whole.items.size(); ++i) {
    json::Value without = whole;
    without.items.erase(without.items.begin() + static_cast<std::ptrdiff_t>(i));
    try {
      read_resume_state(without);
      FAIL() << whole.items[i].key << " was not missed";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadData);
      EXPECT_NE(std::string(error.what()).find(whole.items[i].key), std::string::npos) << error.what();
    }
  }
}

TEST(RunHash, TellsStepsApart) {
  StepResult step;
  step.step = 1;
  step.loss = 2;
  const auto after = [&](const StepResult& result) {
    RunHash hash = RunHash::begin("identity");
    hash.add(result);
    return hash.value();
  };
  const uint64_t first = after(step);
  EXPECT_EQ(after(step), first);
  StepResult other = step;
  other.loss = std::nextafter(2.0, 3.0);
  EXPECT_NE(after(other), first);
  other = step;
  other.refusal = Refusal::kSpike;
  EXPECT_NE(after(other), first);
  EXPECT_NE(RunHash::begin("another").value(), RunHash::begin("identity").value());
}

}  // namespace
}  // namespace mhmoe::train
