#include "train/trained_model.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "nn/parameter_file.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/run.h"
#include "train/trainer.h"

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;

bool is_folder(const std::string& path) {
  std::error_code unknown;  // then opening it tells why
  return fs::is_directory(path, unknown);
}

const std::string& config_text(const SafetensorsFile& file) {
  const auto config = file.metadata().find("config");
  if (config == file.metadata().end()) {
    fail(ExitCode::kBadData,
         "{}: has no `config` in its metadata, so it is no model that mhmoe wrote; give a run's folder, a checkpoint, "
         "or what mhmoe checkpoint export made of one",
         file.path());
  }
  return config->second;
}

// A checkpoint proves its tensors itself; a file of its own does not.
void check_finite(const SafetensorsFile& file) {
  for (const std::string& name : file.names()) {
    if (std::ranges::all_of(file.doubles(name), [](double value) { return std::isfinite(value); })) continue;
    fail(ExitCode::kBadData,
         "{}: tensor {} holds values that are not finite, so the model computes nothing; use another", file.path(),
         name);
  }
}

}  // namespace

TrainedModel::TrainedModel(const std::string& path, std::span<const std::string> overrides) : source_(path) {
  if (is_folder(path)) {
    const Checkpoint checkpoint = find_checkpoint(path);
    source_ = checkpoint.path();
    step_ = checkpoint.step();
    files_ = checkpoint.read("model");
    config_ = parse_config(checkpoint.config(), source_, overrides);
  } else {
    files_.emplace_back(path);
    check_finite(files_.front());
    config_ = parse_config(config_text(files_.front()), source_, overrides);
  }
  if (config_.data.tokenizer.empty()) {
    fail(ExitCode::kConfig, "{}: data.tokenizer is not given; say which with --set data.tokenizer=FILE", source_);
  }
  tokenizer_ = data::load_tokenizer(config_.data.tokenizer);
  resolve_vocab_size(config_, *tokenizer_);
}

std::unique_ptr<CausalLm> TrainedModel::load(Context& ctx, const Backend& backend) {
  auto model = std::make_unique<CausalLm>(config_.model, false);
  model->parameters().allocate(ctx, compute_dtype(config_.train.precision, backend.prefers_bf16()), false);
  nn::load_parameters(ctx, model->parameters(), files_);
  files_.clear();
  return model;
}

}  // namespace mhmoe::train
