#include "train/config.h"

#include "train/config_fixture.h"

namespace mhmoe::train {
namespace {

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

TEST_F(ConfigTest, ErrorsBesideAnOverrideKeepTheirLine) {
  const std::string text = "{\n\"train\": {\n\"batch_tokenss\": 64,\n\"optimizer\": {\"beta1\": 2}}}";
  EXPECT_TRUE(contains(error_of(text, {"train.steps=20"}), "c.json:3: train.batch_tokenss: unknown key"));
  const std::string no_typo = "{\n\"train\": {\n\"optimizer\": {\n\"beta1\": 2}}}";
  EXPECT_TRUE(contains(error_of(no_typo, {"train.optimizer.beta2=0.5"}), "c.json:4: train.optimizer.beta1: found 2"));
  EXPECT_TRUE(contains(error_of(no_typo, {"train.optimizer.beta1=3"}),
                       "--set train.optimizer.beta1=3: train.optimizer.beta1: found 3"));
  EXPECT_TRUE(contains(error_of("{}", {"trian.steps=3"}), "--set trian.steps=3: trian: unknown key"));
}

TEST_F(ConfigTest, WhatIsNotBuiltIsRefusedInWords) {
  const struct {
    const char* text;
    const char* reason;
  } cases[] = {
      {R"({"model": {"moe": {"router": {"kind": "xmoe_paper"}}}})", "other routers are"},
      {R"({"model": {"quantization": {"weights": "bitnet"}}})", "quantization is"},
      {R"({"evaluation": {"capacity_factor": 2.0}})", "another capacity in validation is"},
  };
  for (const auto& [text, reason] : cases) {
    EXPECT_TRUE(contains(error_of(text), fmt::format(": {} not available in this version; expected ", reason)))
        << error_of(text);
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
  "parallel":   {"expert_parallel_size": null, "overlap_chunks": 4, "width_invariant": false, "verify_transfers": false,
                 "timeout_seconds": 60},
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
  EXPECT_EQ(config.parallel.overlap_chunks, 4);
  EXPECT_EQ(config.parallel.timeout_seconds, 60);
  EXPECT_EQ(config.evaluation.tokens, 4096);
}

// With the neutral values of what is not built yet.
TEST_F(ConfigTest, AFullConfigurationIsAccepted) {
  const std::string full = R"json({
  "comment": "paper 2, Table 1, MH-MoE (head=3)", "name": "mhmoe_h3", "seed": 1, "output_dir": "runs",
  "data":  {"train": [{"path": "data/en/train", "weight": 1.0}],
            "validation": [{"name": "redpajama", "path": "data/en/validation"}],
            "tokenizer": "data/en/tokenizer.model", "sequence_length": 2048},
  "model": {"vocab_size": null, "layers": 12, "hidden_size": 768, "attention_heads": 12, "norm_eps": 1e-5, "rope_base": 10000,
            "tie_embeddings": true, "ffn": {"activation": "swiglu", "hidden_size": 2048},
            "moe": {"every_n_layers": 2, "experts": 96, "top_k": 3, "heads": 3, "expert_hidden_size": 512,
                    "head_layer": null, "merge_layer": null, "projection_bias": true, "residual": "outer",
                    "router": {"kind": "linear", "normalize_top_k": false},
                    "capacity_factor": 1.0, "balance_loss_weight": 0.01, "balance_loss_counts": "first_choice",
                    "shared_expert_hidden_size": 0},
            "quantization": {"weights": "none", "activations": "none"}},
  "train": {"steps": 100000, "batch_tokens": 524288, "micro_batch_sequences": 8, "precision": "auto",
            "optimizer": {"kind": "adamw", "beta1": 0.9, "beta2": 0.95, "eps": 1e-6, "weight_decay": 0.1, "weight_decay_on": "all"},
            "learning_rate": {"peak": 6e-4, "final": 3e-5, "warmup_steps": 375, "decay": "linear"},
            "gradient_clip_norm": 2.0, "recompute": "none"},
  "parallel":   {"expert_parallel_size": null, "overlap_chunks": 2, "width_invariant": false, "verify_transfers": false, "timeout_seconds": 600},
  "evaluation": {"every_steps": 1000, "tokens": 1048576, "capacity_factor": "train"},
  "checkpoint": {"every_steps": 5000, "keep_last": 3},
  "log":        {"every_steps": 10, "routing_every_steps": 1000}
})json";
  EXPECT_EQ(error_of(full), "accepted");
}

TEST_F(ConfigTest, ResolvedConfigOfALaterVersionsKeysHoldsTheirNeutralValues) {
  const std::string resolved = resolved_config(RunConfig{});
  for (const char* part : {R"("weights": "none")", R"("kind": "linear")", R"("expert_parallel_size": null)",
                           R"("overlap_chunks": 2)", R"("width_invariant": false)", R"("verify_transfers": false)",
                           R"("timeout_seconds": 600)", R"("capacity_factor": "train")"}) {
    EXPECT_TRUE(contains(resolved, part)) << part << " in\n" << resolved;
  }
  EXPECT_EQ(error_of(resolved), "accepted");
}

TEST_F(ConfigTest, TokensOfARunCanBeCounted) {
  const auto long_run = [](int64_t batch_tokens) {
    return fmt::format(R"({{"train": {{"steps": 1000000000, "batch_tokens": {}, "micro_batch_sequences": 1}},
                           "data": {{"sequence_length": 1}}}})",
                       batch_tokens);
  };
  EXPECT_EQ(error_of(long_run(1000000)), "accepted");
  EXPECT_TRUE(contains(error_of(long_run(1000001)),
                       "c.json:1: train.steps: 1000000000 steps of 1000001 tokens (train.batch_tokens) are more than "
                       "1000000000000000 tokens"));
  EXPECT_TRUE(contains(error_of(long_run(1000000000000)), "train.steps: 1000000000 steps of 1000000000000 tokens"));
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
      {R"({"model": {"moe": {"every_n_layers": 13}}})",
       "every_n_layers: 13 is more than model.layers, 12: no layer would be MoE; expected at most 12, or 0 for a dense "
       "model"},
      {R"({"model": {"moe": {"capacity_factor": 1.0000001}}})", "at most 6 decimals"},
      {R"({"train": {"batch_tokens": 500000}})", "try batch_tokens 491520 or 507904"},
      {R"({"train": {"batch_tokens": 20480}})", "or micro_batch_sequences 1, 2, 5, 10"},
      {R"({"train": {"steps": 10}})",
       "warmup_steps: 375 warm-up steps are more than train.steps, 10; expected at most 10"},
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
