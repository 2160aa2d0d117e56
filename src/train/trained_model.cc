#include "train/trained_model.h"

#include <filesystem>

#include "core/finite.h"
#include "core/hash.h"
#include "core/rank.h"
#include "nn/parameter_file.h"
#include "train/checkpoint.h"
#include "train/config.h"
#include "train/resume_state.h"
#include "train/run.h"
#include "train/trainer.h"

namespace mhmoe::train {
namespace {

namespace fs = std::filesystem;

bool is_folder(const std::string& path) {
  std::error_code unknown;  // then opening it tells why
  return fs::is_directory(path, unknown);
}

const std::string& config_text(const SafetensorsReader& file) {
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
void check_finite(const SafetensorsReader& file, const std::string& name, const Tensor& tensor) {
  if (all_finite(tensor)) return;
  fail(ExitCode::kBadData, "{}: tensor {} holds values that are not finite, so the model computes nothing; use another",
       file.path(), name);
}

}  // namespace

TrainedModel::TrainedModel(const std::string& path, std::span<const std::string> overrides) : source_(path) {
  std::optional<std::string> trained_with;
  if (is_folder(path)) {
    const Checkpoint checkpoint = find_checkpoint(path);
    source_ = checkpoint.path();
    step_ = checkpoint.step();
    files_ = checkpoint.open("model");
    config_ = parse_config(checkpoint.config(), source_, overrides);
    trained_with = read_resume_state(checkpoint.state()).origin.tokenizer;
  } else {
    files_.emplace_back(path);
    files_.front().set_check(check_finite);
    config_ = parse_config(config_text(files_.front()), source_, overrides);
  }
  if (config_.data.tokenizer.empty()) {
    fail(ExitCode::kConfig, "{}: data.tokenizer is not given; say which with --set data.tokenizer=FILE", source_);
  }
  tokenizer_ = data::load_tokenizer(config_.data.tokenizer);
  check_tokenizer(trained_with);
  resolve_vocab_size(config_, *tokenizer_);
}

void TrainedModel::check_tokenizer(const std::optional<std::string>& trained_with) const {
  const std::string hash = to_hex(tokenizer_->hash());
  if (trained_with.value_or(hash) == hash) return;
  fail(ExitCode::kBadData,
       "{}: the model was trained with another tokenizer (hash {}) than {} (hash {}); say where that one is with --set "
       "data.tokenizer=FILE",
       source_, *trained_with, config_.data.tokenizer, hash);
}

std::unique_ptr<CausalLm> TrainedModel::load(Context& ctx, const Backend& backend) {
  auto model = std::make_unique<CausalLm>(config_.model, false);
  model->parameters().allocate(ctx, compute_dtype(config_.train.precision, backend.prefers_bf16(local_rank())), false);
  nn::load_parameters(ctx, model->parameters(), files_);
  // A checkpoint's checksums have told; it may be deleted meanwhile by the run that it is of.
  if (!step_) files_.front().file().check_unchanged();
  files_.clear();
  return model;
}

}  // namespace mhmoe::train
