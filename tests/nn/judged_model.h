// The program's model or MoE layer on the device under test, or on the CPU backend with a changed table of kernels,
// with results by the names of the oracle's.
#pragma once

#include <regex>
#include <span>

#include "cpu/context.h"
#include "device_under_test.h"
#include "nn/mh_moe.h"
#include "reference/outputs.h"
#include "train/task.h"

namespace mhmoe::nn_test {

using reference::Batch;
using reference::Matrix;
using reference::Outputs;
using reference::Parameters;

inline std::vector<double> values_of(Context& ctx, const Tensor& tensor) {
  std::vector<std::byte> bytes(tensor.bytes());
  ctx.download(bytes.data(), tensor);
  const auto widen = [&]<class T>(T) {
    const auto* values = reinterpret_cast<const T*>(bytes.data());
    return std::vector<double>(values, values + tensor.count());
  };
  return tensor.dtype == DType::kI32 ? widen(int32_t{}) : widen(float{});
}

// Keeps the tensors that the oracle also gives.
class OutputRecorder final : public TensorObserver {
 public:
  explicit OutputRecorder(Context& ctx) : ctx_(ctx) { ctx.set_observer(this); }
  ~OutputRecorder() override { ctx_.set_observer(nullptr); }
  void record(const std::string& name, const Tensor& tensor) override {
    static const std::regex known(R"(logits|layers\.\d+\.output|.*moe\.(balance_loss|expert_index|gate_weight|slot))");
    if (!name.starts_with("grad.") && std::regex_match(name, known)) outputs[name] = values_of(ctx_, tensor);
  }
  Outputs outputs;

 private:
  Context& ctx_;
};

// prefix: what the store's names begin with and those of `values` do not.
inline void load(Context& ctx, nn::ParameterStore& store, const Parameters<double>& values, const std::string& prefix) {
  size_t loaded = 0;
  store.visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    MHMOE_CHECK(part.name.starts_with(prefix), "parameter {} has no prefix {}", part.name, prefix);
    const Matrix<double>& source = values.at(part.name.substr(prefix.size()));
    MHMOE_CHECK(part.count() == static_cast<int64_t>(source.values.size()), "{} has {} elements", part.name,
                part.count());
    const std::vector<float> narrow(source.values.begin(), source.values.end());
    ctx.upload(nn::ParameterStore::part_of(parameter.master, part), narrow.data());
    ++loaded;
  });
  MHMOE_CHECK(loaded == values.size(), "the program has {} parameters, the oracle {}", loaded, values.size());
  store.refresh_copies(ctx);
}

inline void read_gradients(Context& ctx, const nn::ParameterStore& store, Outputs& outputs, const std::string& prefix) {
  store.visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    outputs["grad." + part.name.substr(prefix.size())] =
        values_of(ctx, nn::ParameterStore::part_of(parameter.gradient, part));
  });
}

inline Tensor upload(Context& ctx, const char* name, const std::vector<double>& values, int64_t rows, int64_t cols) {
  const std::vector<float> narrow(values.begin(), values.end());
  const Tensor tensor = ctx.state().allocate(name, DType::kF32, {rows, cols});
  ctx.upload(tensor, narrow.data());
  return tensor;
}

inline Tensor upload_ids(Context& ctx, const std::vector<int64_t>& ids, int64_t length) {
  const std::vector<int32_t> narrow(ids.begin(), ids.end());
  const Tensor tensor = ctx.state().allocate("ids", DType::kI32, {static_cast<int64_t>(ids.size()) / length, length});
  ctx.upload(tensor, narrow.data());
  return tensor;
}

inline nn::Pass make_pass(Context& ctx, const nn::ModelConfig& config, int64_t moe_layers, nn::GradientSink& sink,
                          int64_t sequences, int64_t length, DType compute = DType::kF32) {
  const int64_t experts = config.moe.experts;
  return {.ctx = ctx,
          .compute = compute,
          .batch = sequences,
          .sequence_length = length,
          .capacity_factor = config.moe.capacity_factor,
          .statistics = {ctx.state().allocate("statistics", DType::kF32, {moe_layers}),
                         ctx.state().allocate("statistics", DType::kI32, {moe_layers, experts})},
          .gradients = &sink,
          .balance_scale = static_cast<float>(config.moe.balance_loss_weight)};
}

struct RunOptions {
  const ops::KernelTable* kernels = nullptr;  // the CPU's with these kernels; null: the device under test
  bool recompute_blocks = false;
  int64_t logit_chunk_rows = 0;  // 0: all rows
  DType compute = DType::kF32;
};

// Forward and backward of one step over the micro-batches, with the results of reference::expected_of.
inline Outputs run_model(const nn::ModelConfig& config, const Parameters<double>& parameters,
                         std::span<const Batch> micro_batches, const RunOptions& options = {}) {
  const std::unique_ptr<Context> ctx =
      options.kernels == nullptr ? test::backend_under_test().create_context(0) : cpu::create_context(*options.kernels);
  const auto rows = static_cast<int64_t>(micro_batches[0].tokens.size());
  train::CausalLm model(config, options.recompute_blocks,
                        options.logit_chunk_rows > 0 ? options.logit_chunk_rows : rows);
  model.parameters().allocate(*ctx, options.compute);
  load(*ctx, model.parameters(), parameters, "");
  int64_t counted = 0;
  for (const Batch& batch : micro_batches) counted += batch.counted();

  nn::DirectGradientSink sink;
  OutputRecorder recorder(*ctx);
  double cross_entropy = 0;
  for (const Batch& batch : micro_batches) {
    const auto tokens = static_cast<int64_t>(batch.tokens.size());
    nn::Pass pass =
        make_pass(*ctx, config, model.moe_layers(), sink, tokens / batch.length, batch.length, options.compute);
    pass.balance_scale /= static_cast<float>(micro_batches.size());
    const train::DeviceBatch ids = {upload_ids(*ctx, batch.tokens, batch.length),
                                    upload_ids(*ctx, batch.targets, batch.length)};
    const Tensor losses = ctx->state().allocate("losses", DType::kF32, {tokens});
    model.forward_backward(pass, ids, losses, train::upload_scale(*ctx, 1.0f / static_cast<float>(counted)));
    for (const double loss : values_of(*ctx, losses)) cross_entropy += loss / static_cast<double>(counted);
  }
  ctx->step().check_empty();
  Outputs outputs = std::move(recorder.outputs);
  outputs["cross_entropy"] = {cross_entropy};
  read_gradients(*ctx, model.parameters(), outputs, "");
  return outputs;
}

// One MoE layer alone: y, grad.x and the rest for the objective sum(y * grad_y) + balance_loss_weight * balance_loss.
// Names have no prefix.
inline Outputs run_moe_layer(const nn::ModelConfig& config, const Parameters<double>& parameters,
                             const Matrix<double>& x, const Matrix<double>& grad_y) {
  const std::unique_ptr<Context> ctx = test::backend_under_test().create_context(0);
  nn::ParameterStore store;
  const nn::MhMoe layer(config, store, "moe", 0);
  store.allocate(*ctx, DType::kF32);
  load(*ctx, store, parameters, "moe.");
  nn::DirectGradientSink sink;
  nn::Pass pass = make_pass(*ctx, config, 1, sink, 1, x.rows);
  const Tensor input = upload(*ctx, "x", x.values, x.rows, x.cols);
  const Tensor upstream = upload(*ctx, "grad_y", grad_y.values, x.rows, x.cols);
  const Tensor residual = upload(*ctx, "residual", std::vector<double>(x.values.size(), 0), x.rows, x.cols);
  const Tensor y = ctx->state().allocate("y", DType::kF32, {x.rows, x.cols});
  const Tensor grad_x = ctx->state().allocate("grad_x", DType::kF32, {x.rows, x.cols});

  OutputRecorder recorder(*ctx);
  const ArenaScope scope(ctx->step());
  nn::MhMoe::Saved saved;
  layer.forward(pass, saved, y, input, residual);
  layer.backward(pass, saved, grad_x, upstream, input);
  Outputs outputs;
  for (auto& [name, values] : recorder.outputs) outputs[name.substr(std::string("moe.").size())] = std::move(values);
  outputs["y"] = values_of(*ctx, y);
  outputs["grad.x"] = values_of(*ctx, grad_x);
  read_gradients(*ctx, store, outputs, "moe.");
  return outputs;
}

}  // namespace mhmoe::nn_test
