#include <csignal>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "comm/job.h"
#include "core/error.h"
#include "core/float_environment.h"

namespace {

using mhmoe::ExitCode;

// In the order that --help lists them.
void add_commands(CLI::App& app) {
  mhmoe::cli::add_train_command(app);
  mhmoe::cli::add_suite_command(app);
  mhmoe::cli::add_evaluate_command(app);
  mhmoe::cli::add_generate_command(app);
  mhmoe::cli::add_prepare_command(app);
  mhmoe::cli::add_plan_command(app);
  mhmoe::cli::add_config_command(app);
  mhmoe::cli::add_trace_command(app);
  mhmoe::cli::add_checkpoint_command(app);
  mhmoe::cli::add_bench_command(app);
}

// The command that was being read when its words were found wrong.
const CLI::App& command_read(const CLI::App& app) {
  const std::vector<CLI::App*> read = app.get_subcommands();
  return read.empty() ? app : command_read(*read.front());
}

std::string full_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : full_name(*parent) + " " + command.get_name();
}

[[noreturn]] void refuse(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = command_read(app);
  std::vector<std::string> names;
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(sub->get_name());
  }
  const std::vector<std::string> extra = app.remaining(true);
  const std::string what =
      extra.empty() ? error.what() : fmt::format("\"{}\" was not expected", CLI::detail::join(extra, " "));
  mhmoe::fail(ExitCode::kUsage, "{}{}; see {} --help", what,
              names.empty() ? "" : fmt::format("; choose one of {}", CLI::detail::join(names, ", ")),
              full_name(command));
}

int run(int argc, char** argv) {
  CLI::App app("Trains Multi-Head Mixture-of-Experts transformers.\nExample: mhmoe train configs/tiny/mhmoe_8.json",
               "mhmoe");
  app.require_subcommand();
  app.set_version_flag("--version", mhmoe::cli::version_text);
  add_commands(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    refuse(app, error);
  }
  mhmoe::cli::check_output();
  return static_cast<int>(ExitCode::kOk);
}

}  // namespace

int main(int argc, char** argv) {
  // A closed pipe or a limit on file sizes is an error of the write, which says where.
  for (const int signal : {SIGPIPE, SIGXFSZ}) std::signal(signal, SIG_IGN);
  mhmoe::fix_float_environment();
  try {
    const int code = run(argc, argv);
    mhmoe::comm::finish_job();
    return code;
  } catch (...) {
    return static_cast<int>(mhmoe::comm::end_by_exception());
  }
}
