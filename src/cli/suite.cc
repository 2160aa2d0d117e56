#include "train/suite.h"

#include <cstdio>
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "cli/report_script.h"
#include "cli/suite_table.h"
#include "core/json.h"
#include "core/log.h"
#include "train/console.h"
#include "train/flops.h"
#include "train/run_folder.h"
#include "train/stop_signals.h"

namespace mhmoe::cli {
namespace {

struct SuiteOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::string output_dir;
  DeviceOptions device;
  bool overwrite = false;
  bool dry_run = false;
};

double training_flops(const train::RunConfig& config) {
  return train::training_flops_per_token(config.model, config.data.sequence_length) *
         static_cast<double>(config.train.steps * config.train.batch_tokens);
}

// "member 3/7: NAME | 2 done in 15:20 | about 38:20 left": by the FLOPs left at the speed of those done, resumed and
// finished ones with the time that they took when they ran.
std::string progress(std::span<const SuiteMember> done, std::span<const train::RunConfig> members) {
  std::string text = fmt::format("member {}/{}: {}", done.size() + 1, members.size(), members[done.size()].name);
  if (done.empty()) return text;
  double seconds = 0, flops_done = 0, flops_left = 0;
  for (const SuiteMember& member : done) {
    seconds += member.summary.seconds;
    flops_done += training_flops(member.config);
  }
  for (const train::RunConfig& member : members.subspan(done.size())) flops_left += training_flops(member);
  return text + fmt::format(" | {} done in {} of training | about {} left", done.size(), train::duration(seconds),
                            train::duration(seconds / flops_done * flops_left));
}

std::vector<train::RunConfig> load(const SuiteOptions& options, const train::Suite& suite) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.output_dir.empty()) overrides.push_back("output_dir=" + json::quote(options.output_dir));
  std::vector<train::RunConfig> members = train::load_members(suite, overrides);
  for (train::RunConfig& config : members) {
    if (config.model.vocab_size == 0) {
      train::resolve_vocab_size(config, *data::load_tokenizer(config.data.tokenizer));
    }
  }
  return members;
}

void train_members(const SuiteOptions& options, const train::Suite& suite,
                   const std::vector<train::RunConfig>& members) {
  train::RunOptions run;  // a finished member is left as it is, an unfinished one goes on
  run.start.overwrite = options.overwrite;
  for (const train::RunConfig& config : members) train::check_run_folder(config, run.start);
  const Backend& backend = open_device(options.device);
  const train::StopSignals signals;  // also between members, and in the last step of one
  std::vector<SuiteMember> done;
  std::vector<std::string> folders;
  for (const train::RunConfig& config : members) {
    log::info("suite {}: {}", suite.name, progress(done, members));
    done.push_back({config, train::run_training(backend, config, run)});
    folders.push_back(done.back().summary.folder);
    log::set_file("");  // what follows is not that run's
    const int signal = train::StopSignals::received();
    if (signal != 0 && done.size() < members.size()) {
      fail(ExitCode::kRequeue, "suite {}: stopped by {} after {} of {} members; the same command{} goes on from there",
           suite.name, train::signal_name(signal), done.size(), members.size(),
           options.overwrite ? " without --overwrite" : "");
    }
  }
  std::fputs(result_table(done).c_str(), stdout);
  std::fflush(stdout);
  const auto report = std::filesystem::path(members[0].output_dir) / "report";
  make_report(folders, report.string(), suite.title.empty() ? suite.name : suite.title);
}

void run_suite(const SuiteOptions& options) {
  const train::Suite suite = train::load_suite(options.file);
  const std::vector<train::RunConfig> members = load(options, suite);
  if (options.dry_run) {
    std::fputs(planned_table(members).c_str(), stdout);
  } else {
    train_members(options, suite, members);
  }
}

}  // namespace

void add_suite_command(CLI::App& app) {
  auto options = std::make_shared<SuiteOptions>();
  CLI::App* command = app.add_subcommand("suite", "Train the experiments of a comparison one after another");
  command->footer(
      "Example: mhmoe suite configs/pocket/english/suite.json\n"
      "         mhmoe suite configs/paper2/suite.json --dry-run\n"
      "Started again, it leaves finished members as they are and goes on with the unfinished one. At the end it\n"
      "prints a table of all and draws OUTPUT_DIR/report with scripts/report.py.\n"
      "The file: {\"name\": \"english\", \"members\": [\"dense.json\", \"smoe_8.json\"], \"output_dir\": "
      "\"runs/english\"}");
  command->add_option("FILE", options->file, "the list of members, a JSON file")->required();
  add_set_option(*command, options->overrides);
  add_device_options(*command, options->device);
  command->add_option("--output-dir", options->output_dir, "where the members' folders are made (output_dir)");
  command->add_flag("--overwrite", options->overwrite, "delete earlier runs of the members' names first");
  command->add_flag("--dry-run", options->dry_run, "only show the members with steps, tokens, parameters and FLOPs");
  command->callback([options] { run_suite(*options); });
}

}  // namespace mhmoe::cli
