#include "train/config.h"

#include <cstdio>
#include <memory>

#include "cli/commands.h"
#include "cli/common_options.h"
#include "train/config_schema.h"

namespace mhmoe::cli {
namespace {

struct ConfigOptions {
  std::string file;
  std::vector<std::string> overrides;
  bool schema = false;
};

void run_config(const ConfigOptions& options) {
  if (!options.schema && options.file.empty()) {
    fail(ExitCode::kUsage, "config: expected a file, or --schema; see mhmoe config --help");
  }
  const std::string text = options.schema ? train::describe_schema()
                                          : train::resolved_config(train::load_config(options.file, options.overrides));
  std::fputs(text.c_str(), stdout);
}

}  // namespace

void add_config_command(CLI::App& app) {
  auto options = std::make_shared<ConfigOptions>();
  CLI::App* command = app.add_subcommand("config", "Check a configuration and print it with every key filled in");
  command->footer(
      "Example: mhmoe config configs/tiny/mhmoe_8.json --set train.steps=100\n"
      "         mhmoe config --schema");
  command->add_option("FILE", options->file, "the configuration, a JSON file");
  add_set_option(*command, options->overrides);
  command->add_flag("--schema", options->schema, "list every key with its type, range, default and meaning");
  command->callback([options] { run_config(*options); });
}

}  // namespace mhmoe::cli
