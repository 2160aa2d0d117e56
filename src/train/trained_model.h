// A trained model as commands are given it: a run's folder (its newest checkpoint), a checkpoint, or a safetensors file
// that carries its configuration.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/safetensors.h"
#include "data/tokenizer.h"
#include "device/backend.h"
#include "train/run_config.h"
#include "train/task.h"

namespace mhmoe::train {

class TrainedModel {
 public:
  // Opens the model and checks all but its weights, a checkpoint's also; `overrides` change its configuration as --set
  // does. Throws Error(kMissingInput) if nothing is there, Error(kBadData) for damaged files, a safetensors file
  // without `config` in its metadata, and another tokenizer than a checkpoint was trained with; Error(kConfig).
  TrainedModel(const std::string& path, std::span<const std::string> overrides);

  // The checkpoint or file that was read.
  const std::string& source() const { return source_; }
  // Of a checkpoint.
  std::optional<int64_t> step() const { return step_; }
  // model.vocab_size is filled in.
  const RunConfig& config() const { return config_; }
  const data::Tokenizer& tokenizer() const { return *tokenizer_; }

  // The model with its weights in the state arena of ctx, in the precision that the configuration says. Once: the files
  // are closed. The model refers to this object's configuration. Throws Error(kBadData) for weights that do not fit the
  // model, have changed since the checkpoint was verified or, of a safetensors file, are not finite; Error(kIo) for
  // such a file that has changed since it was opened.
  std::unique_ptr<CausalLm> load(Context& ctx, const Backend& backend);

 private:
  // Where the file does not tell the hash, any fits.
  void check_tokenizer(const std::optional<std::string>& trained_with) const;

  std::string source_;
  std::optional<int64_t> step_;
  std::vector<SafetensorsReader> files_;
  RunConfig config_;
  std::unique_ptr<data::Tokenizer> tokenizer_;
};

}  // namespace mhmoe::train
