#include <csignal>

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

int run(int argc, char** argv) {
  CLI::App app("Trains Multi-Head Mixture-of-Experts transformers.\nExample: mhmoe train configs/tiny/mhmoe_8.json",
               "mhmoe");
  app.set_version_flag("--version", mhmoe::cli::version_text);
  add_commands(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    mhmoe::fail(ExitCode::kUsage, "{}; see mhmoe --help", error.what());
  }
  if (app.get_subcommands().empty()) mhmoe::fail(ExitCode::kUsage, "a subcommand is required; see mhmoe --help");
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
