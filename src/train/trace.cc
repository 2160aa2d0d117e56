#include "train/trace.h"

#include <algorithm>
#include <cstring>
#include <regex>

#include "nn/parameter_file.h"
#include "train/task.h"

namespace mhmoe::train {
namespace {

// i32 on the device, I64 in files: the layout of the golden vectors.
HostTensor to_host(Context& ctx, std::string name, std::vector<int64_t> dims, const Tensor& tensor) {
  HostTensor out{std::move(name), tensor.dtype, std::move(dims), std::vector<std::byte>(tensor.bytes())};
  ctx.download(out.bytes.data(), tensor);
  if (tensor.dtype != DType::kI32) return out;
  std::vector<int32_t> narrow(static_cast<size_t>(tensor.count()));
  std::memcpy(narrow.data(), out.bytes.data(), out.bytes.size());
  const std::vector<int64_t> wide(narrow.begin(), narrow.end());
  out.dtype = DType::kI64;
  out.bytes.resize(wide.size() * sizeof(int64_t));
  std::memcpy(out.bytes.data(), wide.data(), out.bytes.size());
  return out;
}

// Keeps the documented tensors and leaves out whatever else layers show to observers.
class Recorder final : public TensorObserver {
 public:
  Recorder(Context& ctx, int64_t batch, int64_t sequence_length)
      : ctx_(ctx), batch_(batch), sequence_length_(sequence_length) {}

  void record(const std::string& name, const Tensor& tensor) override {
    static const std::regex documented(
        R"(logits|layers\.\d+\.(output|moe\.(balance_loss|expert_index|gate_weight|slot)))");
    if (!std::regex_match(name, documented)) return;
    // A recomputed block shows its tensors twice, with equal values.
    if (std::ranges::any_of(tensors_, [&](const HostTensor& known) { return known.name == name; })) return;
    std::vector<int64_t> dims(tensor.shape().begin(), tensor.shape().end());
    if (name == "logits" || name.ends_with(".output")) dims = {batch_, sequence_length_, tensor.cols()};
    if (name.ends_with(".balance_loss")) dims = {};
    tensors_.push_back(to_host(ctx_, name, std::move(dims), tensor));
  }

  std::vector<HostTensor> take() { return std::move(tensors_); }

 private:
  Context& ctx_;
  int64_t batch_, sequence_length_;
  std::vector<HostTensor> tensors_;
};

// Tokens or targets as i32 on the device, each within [lowest, vocab).
Tensor upload_ids(Context& ctx, const SafetensorsFile& file, const char* name, int64_t lowest, int64_t vocab) {
  const Tensor& ids = file.at(name);
  if (ids.dtype != DType::kI64 || ids.rank != 2 || ids.count() == 0) {
    fail(ExitCode::kBadData, "{}: {} is {}, expected i64[B, T] with B and T at least 1", file.path(), name,
         ids.describe());
  }
  std::vector<int32_t> values;
  for (int64_t i = 0; i < ids.count(); ++i) {
    const int64_t id = ids.as<int64_t>()[i];
    if (id < lowest || id >= vocab) {
      fail(ExitCode::kBadData, "{}: {}[{}, {}] is {}, expected {} to {}", file.path(), name, i / ids.cols(),
           i % ids.cols(), id, lowest, vocab - 1);
    }
    values.push_back(static_cast<int32_t>(id));
  }
  const Tensor out = ctx.state().allocate(name, DType::kI32, {ids.dims[0], ids.dims[1]});
  ctx.upload(out, values.data());
  return out;
}

int64_t counted_targets(const SafetensorsFile& file) {
  const Tensor& targets = file.at("targets");
  const std::span<const int64_t> ids(targets.as<int64_t>(), static_cast<size_t>(targets.count()));
  const int64_t counted = std::ranges::count_if(ids, [](int64_t id) { return id >= 0; });
  if (counted == 0) fail(ExitCode::kBadData, "{}: targets counts no position: all are -1", file.path());
  return counted;
}

HostTensor cross_entropy(Context& ctx, const Tensor& losses, int64_t counted) {
  std::vector<float> values(static_cast<size_t>(losses.count()));
  ctx.download(values.data(), losses);
  double sum = 0;
  for (const float value : values) sum += value;
  const auto mean = static_cast<float>(sum / static_cast<double>(counted));
  HostTensor out{"cross_entropy", DType::kF32, {}, std::vector<std::byte>(sizeof mean)};
  std::memcpy(out.bytes.data(), &mean, sizeof mean);
  return out;
}

}  // namespace

Tensor HostTensor::view() const {
  static constexpr int64_t kScalar[] = {1};
  const std::span<const int64_t> shape = dims.empty() ? std::span<const int64_t>(kScalar) : std::span(dims);
  return Tensor(const_cast<std::byte*>(bytes.data()), dtype, shape);
}

std::vector<HostTensor> trace(Context& ctx, const nn::ModelConfig& config, const SafetensorsReader& weights,
                              const SafetensorsFile& tokens, const TraceOptions& options) {
  const DeviceBatch batch = {upload_ids(ctx, tokens, "tokens", 0, config.vocab_size),
                             upload_ids(ctx, tokens, "targets", -1, config.vocab_size)};
  if (!batch.tokens.same_shape(batch.targets)) {
    fail(ExitCode::kBadData, "{}: tokens is {} and targets is {}, expected equal shapes", tokens.path(),
         batch.tokens.describe(), batch.targets.describe());
  }
  const int64_t counted = counted_targets(tokens);
  const int64_t rows = batch.tokens.count();
  CausalLm model(config, options.recompute_blocks, rows);
  model.parameters().allocate(ctx, options.compute);
  nn::load_parameters(ctx, model.parameters(), {&weights, 1});

  const int64_t layers = model.moe_layers();
  const Tensor losses = ctx.state().allocate("losses", DType::kF32, {rows});
  const nn::MoeStatistics statistics = {ctx.state().allocate("statistics", DType::kF32, {layers}),
                                        ctx.state().allocate("statistics", DType::kI32, {layers, config.moe.experts})};
  nn::DirectGradientSink gradients;
  nn::Pass pass{.ctx = ctx,
                .compute = options.compute,
                .batch = batch.tokens.dims[0],
                .sequence_length = batch.tokens.dims[1],
                .capacity_factor = config.moe.capacity_factor,
                .statistics = statistics,
                .gradients = &gradients,
                .balance_scale = static_cast<float>(config.moe.balance_loss_weight)};
  Recorder recorder(ctx, pass.batch, pass.sequence_length);
  ctx.set_observer(&recorder);
  model.forward_backward(pass, batch, losses, upload_scale(ctx, 1.0f / static_cast<float>(counted)));
  ctx.set_observer(nullptr);
  ctx.step().check_empty();

  std::vector<HostTensor> out = recorder.take();
  out.push_back(cross_entropy(ctx, losses, counted));
  model.parameters().visit([&](const nn::Parameter& parameter, const nn::ParameterPart& part) {
    out.push_back(to_host(ctx, "grad." + part.name, part.dims, nn::ParameterStore::part_of(parameter.gradient, part)));
  });
  return out;
}

void write_trace(const std::string& path, const std::vector<HostTensor>& tensors) {
  std::vector<NamedTensor> named;
  named.reserve(tensors.size());
  for (const HostTensor& tensor : tensors) named.push_back({tensor.name, tensor.view(), tensor.dims.empty()});
  write_safetensors(path, named);
}

}  // namespace mhmoe::train
