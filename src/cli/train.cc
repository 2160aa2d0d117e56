#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/score_table.h"
#include "core/json.h"
#include "train/config.h"
#include "train/console.h"
#include "train/run.h"
#include "train/run_folder.h"
#include "train/stop_signals.h"

namespace mhmoe::cli {
namespace {

struct TrainOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::string output_dir;
  DeviceOptions device;
  train::RunOptions run;
};

void print_summary(const train::RunSummary& summary) {
  if (!summary.validation.empty()) std::fputs(score_table(summary.validation).c_str(), stdout);
  fmt::print("{} tokens in {:.1f} s", summary.tokens, summary.seconds);
  if (summary.tokens_per_second) fmt::print(", {} tokens/s", train::short_count(*summary.tokens_per_second));
  fmt::print("; model in {}\n", summary.checkpoint);
}

void run_train(const TrainOptions& options, const Surroundings& surroundings) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.output_dir.empty()) overrides.push_back("output_dir=" + json::quote(options.output_dir));
  const train::StopSignals signals;  // MPI takes a second to start
  Job& job = surroundings.job();
  train::RunConfig config;
  comm::agree_after(job, [&] { config = train::load_config(options.file, overrides); });
  train::RunOptions run = options.run;
  run.job = &job;
  comm::configure_job({.ranks_per_node = static_cast<int>(config.parallel.ranks_per_node),
                       .timeout_seconds = static_cast<double>(config.parallel.timeout_seconds)});
  const train::RunSummary summary = train::run_training(surroundings.open_device(options.device), config, run);
  if (job.rank() == 0) print_summary(summary);
}

}  // namespace

void add_train_command(CLI::App& app, const Surroundings& surroundings) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App* command = app.add_subcommand("train", "Train a model and leave a run folder");
  command->footer(
      "Example: mhmoe train configs/tiny/mhmoe_8.json --set train.steps=100 --output-dir runs\n"
      "         mhmoe train configs/tiny/mhmoe_8.json --resume never\n"
      "The run's folder is OUTPUT_DIR/NAME: config.json, log.txt, status.json, metrics.jsonl, perplexity.csv,\n"
      "routing.jsonl, tensorboard/, checkpoints/; of several ranks also flight.log after a time-out and, while they "
      "run\n"
      "on several nodes, heartbeats/. The same command again goes on where the run stopped. SIGTERM, SIGINT and "
      "SIGUSR1\n"
      "finish the step, save and end with exit code 75; a second SIGTERM or SIGINT stops at once.");
  command->add_option("CONFIG", options->file, "the configuration, a JSON file")->required();
  add_set_option(*command, options->overrides);
  add_device_options(*command, options->device);
  command->add_option("--output-dir", options->output_dir, "where the run's folder is made (output_dir)");
  command
      ->add_option("--resume", options->run.start.resume,
                   "auto: go on with the run in the folder, if there is one; never: refuse to; or the checkpoint of "
                   "another run of this configuration, to branch off from")
      ->capture_default_str();
  command->add_flag("--overwrite", options->run.start.overwrite, "delete an earlier run of the same name first");
  command->add_option("--dump", options->run.dump_folder,
                      "write every named tensor of one step into this folder; of several ranks, those of rank 0");
  command->add_option("--dump-step", options->run.dump_step, "the step that --dump writes")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->callback([options, surroundings] { run_train(*options, surroundings); });
}

}  // namespace mhmoe::cli
