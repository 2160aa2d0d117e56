#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/score_table.h"
#include "nn/parameter_file.h"
#include "train/config.h"
#include "train/evaluation.h"
#include "train/run.h"
#include "train/run_folder.h"
#include "train/trainer.h"

namespace mhmoe::cli {
namespace {

struct EvaluateOptions {
  std::string path;
  std::vector<std::string> overrides;
  DeviceOptions device;
};

struct Model {
  std::vector<SafetensorsFile> files;
  train::RunConfig config;
};

train::RunConfig config_of(const SafetensorsFile& file, const std::vector<std::string>& overrides) {
  const auto config = file.metadata().find("config");
  if (config == file.metadata().end()) {
    fail(ExitCode::kBadData, "{}: has no configuration in its metadata, so it is no model that mhmoe train saved",
         file.path());
  }
  return train::parse_config(config->second, file.path(), overrides);
}

Model open_model(const EvaluateOptions& options) {
  std::error_code unknown;  // then opening it tells why
  if (!std::filesystem::is_directory(options.path, unknown)) {
    std::vector<SafetensorsFile> files;
    files.emplace_back(options.path);
    train::RunConfig config = config_of(files.front(), options.overrides);
    return {std::move(files), std::move(config)};
  }
  const auto folder = std::filesystem::path(options.path) / train::kCheckpointsFolderName;
  const std::optional<train::Checkpoint> checkpoint = train::newest_checkpoint(folder.string());
  if (!checkpoint) fail(ExitCode::kMissingInput, "{}: no checkpoint in it", folder.string());
  return {checkpoint->read("model"), train::parse_config(checkpoint->config(), checkpoint->path(), options.overrides)};
}

void run_evaluate(const EvaluateOptions& options) {
  auto [files, config] = open_model(options);
  train::require_data(config, false);
  const std::unique_ptr<data::Tokenizer> tokenizer = data::load_tokenizer(config.data.tokenizer);
  train::resolve_vocab_size(config, *tokenizer);
  const train::Evaluation evaluation(config, *tokenizer);

  const Backend& backend = open_device(options.device);
  const std::unique_ptr<Context> ctx = backend.create_context(0);
  train::CausalLm task(config.model, false);
  const DType compute = train::compute_dtype(config.train.precision, backend.prefers_bf16());
  task.parameters().allocate(*ctx, compute, false);
  nn::load_parameters(*ctx, task.parameters(), files);
  std::fputs(score_table(evaluation.run(*ctx, task)).c_str(), stdout);
}

}  // namespace

void add_evaluate_command(CLI::App& app) {
  auto options = std::make_shared<EvaluateOptions>();
  CLI::App* command = app.add_subcommand("evaluate", "Score a trained model on its validation sets");
  command->footer(
      "Example: mhmoe evaluate runs/mhmoe_8\n"
      "         mhmoe evaluate model.safetensors --set evaluation.tokens=100000");
  command->add_option("RUN_OR_MODEL", options->path, "a run's folder, or a model.safetensors")->required();
  add_set_option(*command, options->overrides);
  add_device_options(*command, options->device);
  command->callback([options] { run_evaluate(*options); });
}

}  // namespace mhmoe::cli
