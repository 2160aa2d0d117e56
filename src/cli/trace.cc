#include "train/trace.h"

#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "core/file.h"
#include "core/log.h"
#include "core/rank.h"
#include "train/config.h"
#include "train/trainer.h"

namespace mhmoe::cli {
namespace {

struct TraceCommand {
  std::string config, weights, tokens, output;
  std::vector<std::string> overrides;
  DeviceOptions device;
};

void run_trace(const TraceCommand& command) {
  const train::RunConfig config = train::load_config(command.config, command.overrides);
  if (config.model.vocab_size == 0) {
    fail(ExitCode::kConfig,
         "{}: model.vocab_size is null; trace reads no tokenizer, so give the number of rows of "
         "embed.weight (--set model.vocab_size=N)",
         command.config);
  }
  create_parent_folder(command.output);  // before the work, so that it is not lost
  const SafetensorsReader weights(command.weights);
  const SafetensorsFile tokens(command.tokens);
  const Backend& backend = open_device(command.device);
  const std::unique_ptr<Context> ctx = backend.create_context(local_rank());
  const train::TraceOptions options = {
      .compute = train::compute_dtype(config.train.precision, backend.prefers_bf16(local_rank())),
      .recompute_blocks = config.train.recompute == train::Recompute::kBlock};
  const auto tensors = train::trace(*ctx, config.model, weights, tokens, options);
  train::write_trace(command.output, tensors);
  log::info("{}: {} tensors", command.output, tensors.size());
}

}  // namespace

void add_trace_command(CLI::App& app) {
  auto options = std::make_shared<TraceCommand>();
  CLI::App* command = app.add_subcommand(
      "trace", "One training-mode forward and backward on given tokens; writes logits, losses, routing and gradients");
  command->footer(
      "File formats: docs/numerics.md\n"
      "Example: mhmoe trace --config C.json --weights W.safetensors --tokens T.safetensors --output O.safetensors");
  command->add_option("--config", options->config, "the configuration; its data section is not needed")->required();
  command->add_option("--weights", options->weights, "the parameters by name, F32 or F64")->required();
  command->add_option("--tokens", options->tokens, "tokens and targets, I64 [B, T]: one micro-batch")->required();
  command->add_option("--output", options->output, "the safetensors file to write")->required();
  add_set_option(*command, options->overrides);
  add_device_options(*command, options->device);
  command->callback([options] { run_trace(*options); });
}

}  // namespace mhmoe::cli
