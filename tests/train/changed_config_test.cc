// Going on with a run whose configuration has changed: refused with the key, the old value and the new one, unless the
// key may change while a run goes on.
#include <set>

#include "core/json.h"
#include "train/config_fixture.h"
#include "train/config_schema.h"
#include "train/run_folder.h"

namespace mhmoe::train {
namespace {

// Where results lie and what they are called; what is logged, validated and kept. Data and tokenizers are compared by
// what is in them.
const std::set<std::string> kMayChange = {"name",
                                          "output_dir",
                                          "data.train[].path",
                                          "data.validation[].path",
                                          "data.tokenizer",
                                          "parallel.expert_parallel_size",
                                          "parallel.overlap_chunks",
                                          "parallel.width_invariant",
                                          "parallel.verify_transfers",
                                          "parallel.hierarchical_all_to_all",
                                          "parallel.ranks_per_node",
                                          "parallel.timeout_seconds",
                                          "evaluation.every_steps",
                                          "evaluation.tokens",
                                          "checkpoint.every_steps",
                                          "checkpoint.keep_last",
                                          "checkpoint.keep_every_steps",
                                          "checkpoint.max_failed_saves",
                                          "checkpoint.asynchronous",
                                          "log.every_steps",
                                          "log.routing_every_steps"};

class ChangedConfig : public ConfigTest {
 protected:
  void SetUp() override {
    ConfigTest::SetUp();
    config_.name = "run";
    config_.output_dir = folder_.string();
    config_.data.train = {{.path = "a", .weight = 1}, {.path = "b", .weight = 2}};
    config_.data.validation = {{.name = "v", .path = "v"}};
    fs::create_directories(run_folder(config_));
    write("run/config.json", resolved_config(config_));
    write("run/lock", "");
  }

  // The message of the refusal, or "accepted".
  std::string answer(const RunConfig& config, const StartOptions& options = {}) const {
    try {
      check_run_folder(config, options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kConfig) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
      return error.what();
    }
    return "accepted";
  }

  RunConfig config_;
};

TEST_F(ChangedConfig, TheSameGoesOn) {
  EXPECT_EQ(answer(config_), "accepted");
}

TEST_F(ChangedConfig, EachKeyInTurn) {
  std::set<std::string> changed;
  for (const ConfigKey& key : config_keys()) {
    // What is not built takes one value only; lists have a test of their own.
    if (!key.later.empty() || key.type == KeyType::kList || key.path == "name" || key.path == "output_dir") continue;
    changed.insert(key.path);
    const bool in_list = contains(key.path, "[]");
    const size_t index = key.path.starts_with("data.train[]") ? 1 : 0;
    const std::string before = json::to_line(key.write(config_, index)), after = another_value(key, before);
    RunConfig config = config_;
    key.read(config, index, json::parse(after, "value", ExitCode::kConfig));
    const std::string message = answer(config);
    if (kMayChange.contains(key.path)) {
      EXPECT_EQ(message, "accepted") << key.path;
      continue;
    }
    std::string name = key.path;
    if (in_list) name.insert(name.find("[]") + 1, std::to_string(index));
    const std::string written = json::to_line(key.write(config, index));
    EXPECT_TRUE(contains(message, fmt::format("another configuration: {}: {} there, {} here;", name, before, written)))
        << key.path << ": " << message;
    EXPECT_EQ(answer(config, {.overwrite = true, .resume = "auto"}), "accepted") << key.path;
  }
  EXPECT_GE(changed.size(), 45U);
  for (const std::string& key : kMayChange) {
    EXPECT_TRUE(changed.contains(key) || key == "name" || key == "output_dir") << key << " is no key any more";
  }
}

TEST_F(ChangedConfig, SourcesAndValidationSetsAreCounted) {
  RunConfig config = config_;
  config.data.train.pop_back();
  EXPECT_TRUE(contains(answer(config), "data.train (how many): 2 there, 1 here")) << answer(config);
  config = config_;
  config.data.validation.push_back({.name = "w", .path = "w"});
  EXPECT_TRUE(contains(answer(config), "data.validation (how many): 1 there, 2 here")) << answer(config);
}

TEST_F(ChangedConfig, ManyDifferencesAreCounted) {
  RunConfig config = config_;
  config.seed = 9;
  config.model.layers = 3;
  config.model.hidden_size = 10;
  config.train.steps = 5;
  config.train.batch_tokens = 7;
  config.train.gradient_clip_norm = 0;
  const std::string message = answer(config);
  EXPECT_TRUE(contains(message, "seed: 1 there, 9 here; ")) << message;
  EXPECT_TRUE(contains(message, "; and 2 more; ")) << message;
}

// A configuration that only says more of the same, in another order and form, is no other.
TEST_F(ChangedConfig, ValuesAreComparedAndNotTheirText) {
  write("run/config.json", fmt::format(R"({{"train": {{"gradient_clip_norm": 2, "optimizer": {{"eps": 0.000001}}}},
      "data": {{"validation": [{{"path": "v", "name": "v"}}], "train": [{{"path": "a"}}, {{"weight": 2, "path": "b"}}]}},
      "name": "run", "output_dir": {}}})",
                                       json::quote(folder_.string())));
  EXPECT_EQ(answer(config_), "accepted");
}

}  // namespace
}  // namespace mhmoe::train
