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

std::string model_path(const std::string& run_or_model) {
  std::error_code unknown;  // then opening it tells why
  if (!std::filesystem::is_directory(run_or_model, unknown)) return run_or_model;
  return (std::filesystem::path(run_or_model) / train::kModelFileName).string();
}

train::RunConfig config_of(const SafetensorsFile& file, const std::vector<std::string>& overrides) {
  const auto config = file.metadata().find("config");
  if (config == file.metadata().end()) {
    fail(ExitCode::kBadData, "{}: has no configuration in its metadata, so it is no model that mhmoe train saved",
         file.path());
  }
  return train::parse_config(config->second, file.path(), overrides);
}

void run_evaluate(const EvaluateOptions& options) {
  const SafetensorsFile file(model_path(options.path));
  train::RunConfig config = config_of(file, options.overrides);
  train::require_data(config, false);
  const std::unique_ptr<data::Tokenizer> tokenizer = data::load_tokenizer(config.data.tokenizer);
  train::resolve_vocab_size(config, *tokenizer);
  const train::Evaluation evaluation(config, *tokenizer);

  const Backend& backend = open_device(options.device);
  const std::unique_ptr<Context> ctx = backend.create_context(0);
  train::CausalLm task(config.model, false);
  const DType compute = train::compute_dtype(config.train.precision, backend.prefers_bf16());
  task.parameters().allocate(*ctx, compute, false);
  nn::load_parameters(*ctx, task.parameters(), {&file, 1});
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
