#include "train/config.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "train/config_schema.h"

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;

class ConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::temp_directory_path() / fmt::format("mhmoe_config_{}_{}", info->name(), getpid());
    fs::create_directories(folder_ / "below");
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  RunConfig load(const std::string& text, const std::vector<std::string>& overrides = {}) const {
    return load_config(write("c.json", text), overrides);
  }
  // The message, or "accepted". `code` is what the error must carry.
  std::string error_of(const std::string& text, const std::vector<std::string>& overrides = {},
                       ExitCode code = ExitCode::kConfig) const {
    try {
      load(text, overrides);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << "one line: " << error.what();
      return error.what();
    }
    return "accepted";
  }

  fs::path folder_;
};

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A document that sets one key, or several of one section.
struct Document {
  std::string text;
  int line = 0;  // of the first of them
};

Document document(const std::string& path, const std::vector<std::string>& members) {
  Document out{"{\n", 1};
  std::string closing = "}\n";
  size_t begin = 0;
  for (size_t dot; (dot = path.find('.', begin)) != std::string::npos; begin = dot + 1, ++out.line) {
    std::string name = path.substr(begin, dot - begin);
    const bool list = name.ends_with("[]");
    if (list) name.resize(name.size() - 2);
    out.text += "\"" + name + (list ? "\": [{\n" : "\": {\n");
    closing = (list ? "}]" : "}") + closing;
  }
  for (const ConfigKey& key : config_keys()) {
    if (!key.required || key.path == path || key.section() + "." != path.substr(0, begin)) continue;
    out.text += "\"" + key.name() + "\": \"filled\",\n";
    ++out.line;
  }
  for (size_t i = 0; i < members.size(); ++i) out.text += members[i] + (i + 1 < members.size() ? ",\n" : "\n");
  ++out.line;
  out.text += closing;
  return out;
}

std::string member(const std::string& name, const std::string& value) {
  return "\"" + name + "\": " + value;
}

// A legal value of the key, as JSON.
std::string legal(const ConfigKey& key) {
  switch (key.type) {
    case KeyType::kList:
      return "[]";
    case KeyType::kChoice:
      return key.choices[0];
    case KeyType::kString:
      return "\"text\"";
    default:
      break;
  }
  RunConfig config;
  config.data.train.resize(1);
  return json::to_line(key.write(config, 0));
}

std::vector<std::string> wrong_types(const ConfigKey& key) {
  std::vector<std::string> all = {"{}"};
  const auto lacks_choice = [&](const char* text) {
    return std::find(key.choices.begin(), key.choices.end(), text) == key.choices.end();
  };
  if (!key.nullable && lacks_choice("null")) all.push_back("null");
  if (key.type != KeyType::kBoolean) all.push_back("true");
  if (key.type != KeyType::kString) all.push_back("\"some text\"");
  if (key.type != KeyType::kList) all.push_back("[3]");
  if (key.type != KeyType::kNumber && key.type != KeyType::kInteger) all.push_back("17");
  if (key.type != KeyType::kNumber) all.push_back("2.5");
  return all;
}

class EveryKey : public ConfigTest {
 protected:
  // The value must be refused, with file, line and key.
  void expect_refused(const ConfigKey& key, const std::string& value) const {
    const Document doc = document(key.path, {member(key.name(), value)});
    const std::string error = error_of(doc.text);
    EXPECT_TRUE(contains(error, fmt::format("c.json:{}: ", doc.line))) << key.path << " = " << value << ": " << error;
    EXPECT_TRUE(contains(error, key.name() + ": found")) << key.path << " = " << value << ": " << error;
  }
};

TEST_F(EveryKey, DefaultIsAccepted) {
  for (const ConfigKey& key : config_keys()) {
    const std::string outcome = error_of(document(key.path, {member(key.name(), legal(key))}).text);
    EXPECT_EQ(outcome, "accepted") << key.path;
  }
}

TEST_F(EveryKey, BelowMinimumAndAboveMaximumAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    if (key.type != KeyType::kInteger && key.type != KeyType::kNumber) continue;
    const bool integer = key.type == KeyType::kInteger;
    const auto text = [&](double value) { return integer ? fmt::format("{:.0f}", value) : fmt::format("{}", value); };
    expect_refused(key, text(key.above_min ? key.min : key.min - (integer ? 1 : 1e-9)));
    expect_refused(key, text(key.below_max ? key.max : integer ? key.max + 1 : key.max * 1.000001));
    expect_refused(key, "-1e300");
    expect_refused(key, "123456789012345678901234567890");
  }
}

TEST_F(EveryKey, WrongTypesAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    for (const std::string& value : wrong_types(key)) expect_refused(key, value);
  }
}

TEST_F(EveryKey, NotANumberIsRefused) {
  for (const ConfigKey& key : config_keys()) {
    for (const char* value : {"NaN", "Infinity", "-Infinity", "1e400"}) expect_refused(key, value);
  }
}

TEST_F(EveryKey, MisspeltNamesAreRefusedWithTheRightOne) {
  for (const ConfigKey& key : config_keys()) {
    std::string wrong = key.name();
    std::swap(wrong[wrong.size() / 2], wrong[wrong.size() / 2 - 1]);
    if (wrong == key.name()) wrong += "x";
    const Document doc = document(key.path, {member(wrong, legal(key))});
    const std::string error = error_of(doc.text);
    EXPECT_TRUE(contains(error, fmt::format("c.json:{}: ", doc.line))) << error;
    EXPECT_TRUE(contains(error, wrong + ": unknown key; did you mean " + key.path + "?")) << error;
  }
}

TEST_F(EveryKey, DuplicatesAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    const std::string one = member(key.name(), legal(key));
    const Document doc = document(key.path, {one, one});
    const std::string error = error_of(doc.text);
    EXPECT_TRUE(contains(error, fmt::format("c.json:{}: ", doc.line + 1))) << error;
    EXPECT_TRUE(contains(error, key.name() + ": the key appears twice")) << error;
    EXPECT_TRUE(contains(error, fmt::format("line {}", doc.line))) << error;
  }
}

TEST_F(EveryKey, WrongSectionsAreRefused) {
  for (const ConfigKey& key : config_keys()) {
    for (const std::string section : {"", "log.", "train.learning_rate."}) {
      const std::string path = section + key.name();
      const auto is_known = [&](const ConfigKey& other) {
        return other.path == path || other.path.starts_with(path + ".");
      };
      if (std::any_of(config_keys().begin(), config_keys().end(), is_known)) continue;
      const Document doc = document(path, {member(key.name(), legal(key))});
      const std::string error = error_of(doc.text);
      EXPECT_TRUE(contains(error, fmt::format("c.json:{}: {}: unknown key", doc.line, path))) << error;
    }
  }
}

TEST_F(EveryKey, IsListedBySchemaAndWrittenBack) {
  const std::string schema = describe_schema();
  const std::string resolved = resolved_config(RunConfig{});
  for (const ConfigKey& key : config_keys()) {
    EXPECT_TRUE(contains(schema, "\n" + key.path + ": ")) << key.path;
    if (!key.later.empty() || contains(key.path, "[]")) continue;
    EXPECT_TRUE(contains(resolved, "\"" + key.name() + "\": ")) << key.path;
  }
}

// A legal value that is not the default, as JSON.
std::string another(const ConfigKey& key) {
  const std::string now = json::to_line(key.write(RunConfig{}, 0));
  switch (key.type) {
    case KeyType::kBoolean:
      return now == "true" ? "false" : "true";
    case KeyType::kChoice:
      return key.choices[key.choices[0] == now ? 1 : 0];
    case KeyType::kString:
      return "\"another\"";
    case KeyType::kInteger:
      return fmt::format("{:.0f}", std::floor((key.min + key.max) / 2));
    default:
      return fmt::format("{}", (key.min + key.max) / 2);
  }
}

// Setting a key changes what the resolved config says of it and nothing else: no accessor points at another's field.
TEST_F(EveryKey, ReachesItsOwnField) {
  for (const ConfigKey& key : config_keys()) {
    if (!key.later.empty() || contains(key.path, "[]") || key.type == KeyType::kList) continue;
    RunConfig config;
    key.read(config, 0, json::parse(another(key), "value", ExitCode::kConfig));
    for (const ConfigKey& other : config_keys()) {
      if (!other.write || contains(other.path, "[]")) continue;
      const bool same = json::to_line(other.write(config, 0)) == json::to_line(other.write(RunConfig{}, 0));
      EXPECT_EQ(same, other.path != key.path) << key.path << " set, " << other.path << " looked at";
    }
  }
}

TEST_F(ConfigTest, ResolvedConfigReadsBackToItself) {
  const RunConfig config = load(R"({"data": {"train": [{"path": "a", "weight": 2}, {"path": "b"}],
    "validation": [{"name": "v", "path": "c"}]}, "model": {"moe": {"capacity_factor": null, "head_layer": false}}})");
  const std::string once = resolved_config(config);
  EXPECT_EQ(resolved_config(load(once)), once);
  ASSERT_EQ(config.data.train.size(), 2u);
  EXPECT_EQ(config.data.train[0].weight, 2.0);
  EXPECT_FALSE(config.model.moe.capacity_factor.has_value());
  EXPECT_EQ(config.model.moe.head_layer, false);
}

TEST_F(ConfigTest, ExtendsMergesKeyByKey) {
  write("base.json", R"({"comment": "b", "name": "base", "train": {"steps": 500, "optimizer": {"beta1": 0.5}}})");
  const RunConfig config = load(R"({"extends": "base.json", "comment": ["two", "lines"], "train": {"steps": 600}})");
  EXPECT_EQ(config.name, "base");
  EXPECT_EQ(config.train.steps, 600);
  EXPECT_EQ(config.train.optimizer.beta1, 0.5);
}

TEST_F(ConfigTest, ErrorsInABaseNameTheBase) {
  write("base.json", "{\n\"train\": {\n\"stepz\": 500}}");
  EXPECT_TRUE(contains(error_of(R"({"extends": "base.json"})"), "base.json:3: train.stepz"));
}

TEST_F(ConfigTest, ExtendsMustNotGoInCircles) {
  write("a.json", R"({"extends": "c.json"})");
  EXPECT_TRUE(contains(error_of(R"({"extends": "a.json"})"), "circle"));
  EXPECT_TRUE(contains(error_of(R"({"extends": "./c.json"})"), "circle"));
}

TEST_F(ConfigTest, ExtendsStaysInItsFolder) {
  const std::string outside = write("outside.json", "{}");  // an absolute path
  const std::string escaping = write("below/c.json", R"({"extends": "../outside.json"})");
  EXPECT_THROW(load_config(escaping), Error);
  EXPECT_TRUE(
      contains(error_of(fmt::format(R"({{"extends": "{}"}})", outside), {}, ExitCode::kPermission), "leads out"));
  fs::create_symlink("/etc", folder_ / "link");
  EXPECT_TRUE(contains(error_of(R"({"extends": "link/passwd"})", {}, ExitCode::kPermission), "leads out"));
  write("below/ok.json", "{}");
  EXPECT_EQ(error_of(R"({"extends": "below/ok.json"})"), "accepted");
  EXPECT_TRUE(contains(error_of(R"({"extends": "none.json"})", {}, ExitCode::kMissingInput), "c.json:1: extends"));
}

TEST_F(ConfigTest, OverridesWinAndAreChecked) {
  const RunConfig config = load("{}", {"train.steps=400", "name=run_2", "model.moe.capacity_factor=null",
                                       R"(data.validation=[{"name":"v","path":"p"}])"});
  EXPECT_EQ(config.train.steps, 400);
  EXPECT_EQ(config.name, "run_2");
  EXPECT_FALSE(config.model.moe.capacity_factor.has_value());
  EXPECT_EQ(config.data.validation.at(0).path, "p");
  EXPECT_TRUE(contains(error_of("{}", {"train.stepz=1"}),
                       "--set train.stepz=1: train.stepz: unknown key; did you mean train.steps?"));
  EXPECT_TRUE(contains(error_of("{}", {"train.steps=many"}), "found \"many\", expected an integer"));
  EXPECT_TRUE(contains(error_of("{}", {"train.steps"}), "KEY=VALUE"));
  EXPECT_TRUE(contains(error_of("{}", {"name.x=1"}), "name: found"));
  EXPECT_TRUE(contains(error_of("{}", {"model.attention_heads=5"}), "--set model.attention_heads=5: model.attention"));
}

TEST_F(ConfigTest, WhatIsNotBuiltIsRefusedInWords) {
  for (const char* text :
       {R"({"model": {"moe": {"router": {"kind": "xmoe_paper"}}}})",
        R"({"model": {"quantization": {"weights": "bitnet"}}})", R"({"parallel": {"expert_parallel_size": 8}})",
        R"({"checkpoint": {"every_steps": 100}})", R"({"log": {"routing_every_steps": 1000}})",
        R"({"evaluation": {"capacity_factor": 2.0}})"}) {
    EXPECT_TRUE(contains(error_of(text), "not available in this version")) << error_of(text);
  }
  for (const char* text :
       {R"({"model": {"dropout": 0.1}})", R"({"model": {"attention_dropout": 0}})", R"({"Dropout": 0})"}) {
    EXPECT_TRUE(contains(error_of(text), "dropout is not built; remove this key")) << error_of(text);
  }
}

// A whole experiment as a person would write it, with every section.
TEST_F(ConfigTest, ReadsAWholeExperiment) {
  const RunConfig config = load(R"json({
  "comment": "paper 2, Table 1, MH-MoE (head=3)", "name": "mhmoe_h3", "seed": 7, "output_dir": "elsewhere",
  "data":  {"train": [{"path": "data/en/train", "weight": 0.5}],
            "validation": [{"name": "redpajama", "path": "data/en/validation"}],
            "tokenizer": "data/en/tokenizer.model", "sequence_length": 1024},
  "model": {"vocab_size": null, "layers": 10, "hidden_size": 384, "attention_heads": 6, "norm_eps": 1e-6, "rope_base": 5000,
            "attention_bias": true, "tie_embeddings": false,
            "ffn": {"activation": "relu", "hidden_size": 1000, "bias": true},
            "moe": {"every_n_layers": 2, "experts": 96, "top_k": 3, "heads": 3, "expert_hidden_size": 512,
                    "head_layer": null, "merge_layer": false, "projection_bias": false, "residual": "inner",
                    "router": {"kind": "linear", "normalize_top_k": true},
                    "capacity_factor": 1.25, "balance_loss_weight": 0.02, "balance_loss_counts": "all_choices",
                    "shared_expert_hidden_size": 64},
            "quantization": {"weights": "none", "activations": "none"}},
  "train": {"steps": 2000, "batch_tokens": 65536, "micro_batch_sequences": 16, "precision": "bf16",
            "optimizer": {"kind": "adam", "beta1": 0.8, "beta2": 0.98, "eps": 1e-8, "weight_decay": 0.01,
                          "weight_decay_on": "matrices"},
            "learning_rate": {"peak": 5e-4, "final": 1e-5, "warmup_steps": 100, "decay": "cosine"},
            "gradient_clip_norm": 0, "recompute": "block"},
  "parallel":   {"expert_parallel_size": null, "overlap_chunks": 1, "width_invariant": false, "verify_transfers": false},
  "evaluation": {"every_steps": 50, "tokens": 4096, "capacity_factor": "train"},
  "checkpoint": {"every_steps": 0},
  "log":        {"every_steps": 5, "routing_every_steps": 0}})json");
  EXPECT_EQ(config.seed, 7u);
  EXPECT_EQ(config.model.vocab_size, 0);
  EXPECT_EQ(config.model.ffn.activation, ops::Activation::kRelu);
  EXPECT_EQ(config.model.moe.heads, 3);
  EXPECT_TRUE(config.model.moe.has_head_layer());
  EXPECT_FALSE(config.model.moe.has_merge_layer());
  EXPECT_EQ(config.model.moe.residual, nn::MoeResidual::kInner);
  EXPECT_EQ(config.model.moe.balance_loss_counts, ops::BalanceCounts::kAllChoices);
  EXPECT_EQ(config.model.moe.capacity_factor, 1.25);
  EXPECT_EQ(config.train.precision, Precision::kBf16);
  EXPECT_EQ(config.train.optimizer.kind, OptimizerKind::kAdam);
  EXPECT_EQ(config.train.optimizer.weight_decay_on, WeightDecayOn::kMatrices);
  EXPECT_EQ(config.train.learning_rate.decay, Decay::kCosine);
  EXPECT_EQ(config.train.recompute, Recompute::kBlock);
  EXPECT_EQ(config.evaluation.tokens, 4096);
}

TEST_F(ConfigTest, ContradictionsAreRefusedWithWhatWouldFit) {
  const struct {
    const char* text;
    const char* message;
  } cases[] = {
      {"{\"model\": {\n\"attention_heads\": 5}}", "c.json:2: model.attention_heads: 5 heads on hidden_size 768"},
      {R"({"model": {"hidden_size": 12, "attention_heads": 4}})", "try 1, 2, 3, 6"},
      {R"({"model": {"moe": {"every_n_layers": 2, "experts": 8, "top_k": 9}}})", "9 of 8 experts"},
      {R"({"model": {"moe": {"every_n_layers": 2, "heads": 5}}})",
       "5 heads do not divide hidden_size 768: try 2, 3, 4, 6"},
      {R"({"model": {"moe": {"every_n_layers": 13}}})", "no layer would be MoE"},
      {R"({"model": {"moe": {"capacity_factor": 1.0000001}}})", "at most 6 decimals"},
      {R"({"train": {"batch_tokens": 500000}})", "try batch_tokens 491520 or 507904"},
      {R"({"train": {"batch_tokens": 20480}})", "or micro_batch_sequences 1, 2, 5, 10"},
      {R"({"train": {"steps": 10}})", "warmup_steps: 375 warm-up steps are more than train.steps, 10"},
      {R"({"train": {"learning_rate": {"peak": 1e-5}}})", "train.learning_rate.final: 3e-05 is above"},
      {R"({"name": "../../etc"})", "name: found"},
      {R"({"data": {"validation": [{"name": "v", "path": "a"}, {"name": "v", "path": "b"}]}})", "names must differ"},
      {R"({"data": {"train": [{"weight": 1}]}})", "data.train[].path: missing"},
      {R"({"data": {"train": [3]}})", "data.train[0]: found 3"},
      {R"({"train": 3})", "train: found 3, expected an object with"},
      {R"([])", "expected an object"},
  };
  for (const auto& [text, message] : cases) {
    EXPECT_TRUE(contains(error_of(text), message)) << error_of(text) << "\nexpected: " << message;
  }
}

}  // namespace
}  // namespace mhmoe::train
