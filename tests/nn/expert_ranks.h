// An MoE layer on the threads of one process, each a rank with its own micro-batch and its share of the experts, and
// the same micro-batches one by one on a rank that has all experts.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>

#include "comm/thread_communicator.h"
#include "core/philox.h"
#include "cpu/backend.h"
#include "nn/mh_moe.h"

namespace mhmoe::nn_test {

using test::Bytes;
using Tensors = std::map<std::string, Bytes>;

struct ExpertCase {
  std::string name;
  nn::ModelConfig config;
  DType compute = DType::kF32;
  std::vector<int64_t> tokens = {14, 14, 14, 14};  // of every rank
  int favourite = -1;                              // expert that every token is sent to
};

inline nn::ModelConfig exchange_config(int64_t heads) {
  nn::ModelConfig config;
  config.hidden_size = 24;
  config.moe.every_n_layers = 1;
  config.moe.experts = 8;
  config.moe.top_k = 2;
  config.moe.heads = heads;
  config.moe.expert_hidden_size = 20;
  return config;
}

// Every rank's share of a weight gradient for itself, as width-invariant training wants it.
class GradientsBySource final : public nn::GradientSink {
 public:
  explicit GradientsBySource(Context& ctx) : ctx_(ctx) {}
  Tensor gradient_of(const nn::Parameter& parameter) override { return parameter.gradient; }
  Tensor gradient_of(const nn::Parameter& parameter, int64_t source) override {
    Tensor& gradient = gradients_[{&parameter, source}];
    if (gradient.empty()) {
      gradient = parameter.gradient;
      gradient.data = ctx_.state().allocate("share", DType::kF32, {parameter.count()}).data;
      ctx_.fill_zero(gradient);
    }
    return gradient;
  }
  // The share of a source that never came is absent.
  void collect(Tensors& out, const std::string& prefix) const;

 private:
  Context& ctx_;
  std::map<std::pair<const nn::Parameter*, int64_t>, Tensor> gradients_;
};

inline Bytes bytes_of(const Tensor& tensor) {
  const auto* data = static_cast<const std::byte*>(tensor.data);
  return {data, data + tensor.bytes()};
}

inline void GradientsBySource::collect(Tensors& out, const std::string& prefix) const {
  for (const auto& [key, gradient] : gradients_) {
    for (const nn::ParameterPart& part : key.first->parts) {
      out[fmt::format("{}{} of {}", prefix, part.name, key.second)] =
          bytes_of(nn::ParameterStore::part_of(gradient, part));
    }
  }
}

// What layers record, by name.
class AllTensors final : public TensorObserver {
 public:
  void record(const std::string& name, const Tensor& tensor) override {
    tensors[name] = bytes_of(tensor);
    if (seen) seen(name);
  }
  Tensors tensors;
  std::function<void(const std::string&)> seen;
};

// One process's layer.
class LayerRank {
 public:
  LayerRank(const ExpertCase& test, int64_t first_expert, int64_t experts,
            std::unique_ptr<Context> ctx = cpu::backend().create_context(0))
      : test_(test), config_(test.config), ctx_(std::move(ctx)) {
    config_.moe.local_experts_begin = first_expert;
    config_.moe.local_experts = experts;
    layer_ = std::make_unique<nn::MhMoe>(config_, store_, "moe", 0);
    store_.allocate(*ctx_, test.compute);
    store_.initialize(*ctx_, 7);
    store_.visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
      if (test_.favourite < 0 || ctx_->sizing() || part.name != "moe.router.weight") return;
      float* weight = parameter.master.as<float>();
      for (int64_t c = 0; c < part.dims[1]; ++c) weight[test_.favourite * part.dims[1] + c] = 9;
    });
  }

  struct Options {
    Communicator* experts = nullptr;
    int64_t overlap_chunks = 1;
    bool verify = false;
    bool training = true;
    std::function<void(const std::string&)> seen = {};  // is told the name of every tensor as it is made
  };
  // Forward and backward of a micro-batch; gradients add up. Inputs are positive where there is a favourite.
  Tensors run(int micro_batch, nn::GradientSink& sink, const Options& options) {
    const int64_t tokens = test_.tokens[static_cast<size_t>(micro_batch)], d = config_.hidden_size;
    const auto random = [&](const char* name, DType dtype) {
      const Philox philox(static_cast<uint64_t>(micro_batch), name);
      const Tensor out = ctx_->state().allocate(name, dtype, {tokens, d});
      for (int64_t i = 0; i < tokens * d && !ctx_->sizing(); ++i) {
        const double value = philox.normal(static_cast<uint64_t>(i));
        const auto x = static_cast<float>(test_.favourite < 0 ? value : std::abs(value));
        dtype == DType::kF32 ? void(out.as<float>()[i] = x) : void(out.as<bfloat16>()[i] = bfloat16(x));
      }
      return out;
    };
    const Tensor x = random("x", test_.compute), grad_y = random("grad_y", test_.compute);
    const Tensor residual = random("residual", DType::kF32);
    const Tensor y = ctx_->state().allocate("y", DType::kF32, {tokens, d});
    const Tensor grad_x = ctx_->state().allocate("grad_x", DType::kF32, {tokens, d});
    nn::Pass pass{.ctx = *ctx_,
                  .compute = test_.compute,
                  .batch = 1,
                  .sequence_length = tokens,
                  .capacity_factor = config_.moe.capacity_factor,
                  .statistics = {ctx_->state().allocate("statistics", DType::kF32, {1}),
                                 ctx_->state().allocate("statistics", DType::kI32, {1, config_.moe.experts})},
                  .gradients = options.training ? &sink : nullptr,
                  .balance_scale = 0.01F,
                  .experts = options.experts,
                  .overlap_chunks = options.overlap_chunks,
                  .verify_transfers = options.verify};
    AllTensors recorded;
    recorded.seen = options.seen;
    ctx_->set_observer(&recorded);
    {
      const ArenaScope scope(ctx_->step());
      nn::MhMoe::Saved saved;
      layer_->forward(pass, saved, y, x, residual);
      if (options.training) layer_->backward(pass, saved, grad_x, grad_y, x);
    }
    ctx_->set_observer(nullptr);
    ctx_->step().check_empty();
    if (ctx_->sizing()) return {};
    recorded.tensors["y"] = bytes_of(y);
    recorded.tensors["load"] = bytes_of(pass.statistics.load);
    if (options.training) recorded.tensors["grad_x"] = bytes_of(grad_x);
    std::erase_if(recorded.tensors, [](const auto& item) { return item.first.ends_with("pre_activation"); });
    return std::move(recorded.tensors);
  }

  // Gradients that lie in the store: of all parameters, or of those that every rank has.
  void collect_gradients(Tensors& out, const std::string& prefix, bool experts) const {
    store_.visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
      if (part.name.find(".experts.") != std::string::npos && !experts) return;
      out[prefix + part.name] = bytes_of(nn::ParameterStore::part_of(parameter.gradient, part));
    });
  }
  Context& ctx() { return *ctx_; }

 private:
  const ExpertCase& test_;
  nn::ModelConfig config_;
  std::unique_ptr<Context> ctx_;
  nn::ParameterStore store_;
  std::unique_ptr<nn::MhMoe> layer_;
};

inline void add_prefixed(Tensors& to, const Tensors& from, const std::string& prefix) {
  for (const auto& [name, bytes] : from) to[prefix + name] = bytes;
}

// `ranks` micro-batches, each by itself with all experts: "rank 1 y", "rank 1 moe.head.weight", and the expert's
// "moe.experts.3.up.weight of 1".
inline Tensors run_alone(const ExpertCase& test, int ranks) {
  Tensors out;
  for (int rank = 0; rank < ranks; ++rank) {
    LayerRank layer(test, 0, test.config.moe.experts);
    GradientsBySource sink(layer.ctx());
    const std::string prefix = fmt::format("rank {} ", rank);
    add_prefixed(out, layer.run(rank, sink, {}), prefix);
    layer.collect_gradients(out, prefix, false);
    Tensors shares;
    sink.collect(shares, "");
    for (const auto& [name, bytes] : shares) out[name.substr(0, name.rfind(' ') + 1) + std::to_string(rank)] = bytes;
  }
  return out;
}

// The same with the experts shared out.
inline Tensors run_shared(const ExpertCase& test, int ranks, const LayerRank::Options& options = {},
                          const test::ThreadGroup::Tamper& tamper = {}) {
  Tensors out;
  std::mutex mutex;
  test::ThreadGroup group(ranks, tamper);
  const int64_t local = test.config.moe.experts / ranks;
  test::run_ranks(group, [&](int rank) {
    test::ThreadCommunicator communicator(group, rank, 100);
    LayerRank::Options own = options;
    own.experts = &communicator;
    LayerRank layer(test, rank * local, local);
    GradientsBySource sink(layer.ctx());
    const Tensors found = layer.run(rank, sink, own);
    communicator.check_idle();
    const std::lock_guard lock(mutex);
    const std::string prefix = fmt::format("rank {} ", rank);
    add_prefixed(out, found, prefix);
    if (!options.training) return;
    layer.collect_gradients(out, prefix, false);
    sink.collect(out, "");
  });
  return out;
}

// Shares that one side lacks must be zero on the other: without rows nothing is asked for.
inline void expect_same(const Tensors& found, const Tensors& expected, const std::string& what) {
  const auto zero = [](const Bytes& bytes) {
    return std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; });
  };
  for (const auto& [name, bytes] : expected) {
    const auto it = found.find(name);
    if (it == found.end()) {
      EXPECT_TRUE(zero(bytes)) << what << ": no " << name;
    } else {
      EXPECT_TRUE(it->second == bytes) << what << ": " << name << " differs";
    }
  }
  for (const auto& [name, bytes] : found) EXPECT_TRUE(expected.contains(name)) << what << ": " << name << " is extra";
}

}  // namespace mhmoe::nn_test
