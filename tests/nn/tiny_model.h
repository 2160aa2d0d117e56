// A small model on the CPU backend, and one forward and backward of it, for tests of whole-model properties.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "core/philox.h"
#include "cpu/backend.h"
#include "train/task.h"

namespace mhmoe::nn_test {

struct Tokens {
  int64_t batch, sequence_length;
  std::vector<int32_t> tokens, targets;
};

inline Tokens random_tokens(int64_t batch, int64_t sequence_length, int64_t vocab, uint64_t seed) {
  const Philox random(seed, "tokens");
  Tokens out{batch, sequence_length, {}, {}};
  for (int64_t i = 0; i < batch * sequence_length; ++i) {
    out.tokens.push_back(static_cast<int32_t>(random.words(2 * i)[0] % vocab));
    out.targets.push_back(static_cast<int32_t>(random.words(2 * i + 1)[0] % vocab));
  }
  return out;
}

inline nn::ModelConfig tiny_config() {
  nn::ModelConfig config;
  config.vocab_size = 29;
  config.layers = 2;
  config.hidden_size = 24;
  config.attention_heads = 3;
  config.ffn.hidden_size = 40;
  config.moe.every_n_layers = 2;
  config.moe.experts = 5;
  config.moe.top_k = 2;
  config.moe.heads = 2;
  config.moe.expert_hidden_size = 16;
  return config;
}

// Keeps a copy of every observed f32 tensor.
class Observations final : public TensorObserver {
 public:
  explicit Observations(Context& ctx) : ctx_(ctx) {}
  void record(const std::string& name, const Tensor& tensor) override {
    if (tensor.dtype != DType::kF32) return;
    auto& values = tensors[name];
    values.resize(static_cast<size_t>(tensor.count()));
    ctx_.download(values.data(), tensor);
  }
  std::map<std::string, std::vector<float>> tensors;

 private:
  Context& ctx_;
};

struct Outcome {
  std::vector<float> losses;
  std::map<std::string, std::vector<float>> observed;   // logits, layers.{i}.output, ...
  std::map<std::string, std::vector<float>> gradients;  // by parameter name
  size_t step_peak_bytes;
};

class TinyModel {
 public:
  explicit TinyModel(const nn::ModelConfig& config, bool recompute = false, DType compute = DType::kF32)
      : config_(config), compute_(compute), ctx_(cpu::backend().create_context(0)), model_(config_, recompute, 4096) {
    model_.parameters().allocate(*ctx_, compute);
    model_.parameters().initialize(*ctx_, 7);
  }

  nn::ParameterStore& parameters() { return model_.parameters(); }

  std::vector<float> get(const std::string& name) {
    std::vector<float> values;
    with_part(name, [&](const Tensor& part) {
      values.resize(static_cast<size_t>(part.count()));
      ctx_->download(values.data(), part);
    });
    return values;
  }
  void set(const std::string& name, const std::vector<float>& values) {
    with_part(name, [&](const Tensor& part) {
      MHMOE_CHECK(static_cast<size_t>(part.count()) == values.size(), "{}: {} values", name, values.size());
      ctx_->upload(part, values.data());
    });
    model_.parameters().refresh_copies(*ctx_);
  }
  void scale(const std::string& name, float factor) {
    auto values = get(name);
    for (float& value : values) value *= factor;
    set(name, values);
  }

  Outcome run(const Tokens& tokens, float balance_scale = 0.01f) {
    const ArenaScope state(ctx_->state());
    const int64_t rows = tokens.batch * tokens.sequence_length, layers = model_.moe_layers();
    const auto upload = [&](const std::vector<int32_t>& values) {
      const Tensor out = ctx_->state().allocate("ids", DType::kI32, {tokens.batch, tokens.sequence_length});
      ctx_->upload(out, values.data());
      return out;
    };
    const train::DeviceBatch batch = {upload(tokens.tokens), upload(tokens.targets)};
    const Tensor losses = ctx_->state().allocate("losses", DType::kF32, {rows});
    nn::DirectGradientSink sink;
    nn::Pass pass{.ctx = *ctx_,
                  .compute = compute_,
                  .batch = tokens.batch,
                  .sequence_length = tokens.sequence_length,
                  .capacity_factor = config_.moe.capacity_factor,
                  .statistics = {ctx_->state().allocate("statistics", DType::kF32, {layers}),
                                 ctx_->state().allocate("statistics", DType::kI32, {layers, config_.moe.experts})},
                  .gradients = &sink,
                  .balance_scale = balance_scale};
    Observations observations(*ctx_);
    ctx_->set_observer(&observations);
    ctx_->fill_zero(model_.parameters().gradient());
    model_.forward_backward(pass, batch, losses, train::upload_scale(*ctx_, 1.0f / static_cast<float>(rows)));
    ctx_->set_observer(nullptr);
    ctx_->step().check_empty();

    Outcome out{
        std::vector<float>(static_cast<size_t>(rows)), std::move(observations.tensors), {}, ctx_->step().peak_bytes()};
    ctx_->download(out.losses.data(), losses);
    model_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
      auto& values = out.gradients[part.name];
      values.resize(static_cast<size_t>(part.count()));
      ctx_->download(values.data(), nn::ParameterStore::part_of(parameter.gradient, part));
    });
    return out;
  }

 private:
  template <class F>
  void with_part(const std::string& name, F&& f) {
    bool found = false;
    model_.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
      if (part.name != name) return;
      f(nn::ParameterStore::part_of(parameter.master, part));
      found = true;
    });
    MHMOE_CHECK(found, "no parameter {}", name);
  }

  nn::ModelConfig config_;
  DType compute_;
  std::unique_ptr<Context> ctx_;
  train::CausalLm model_;
};

inline bool same_bytes(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace mhmoe::nn_test
