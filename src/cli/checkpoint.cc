#include "train/checkpoint.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "cli/checkpoint_text.h"
#include "cli/commands.h"
#include "core/file.h"
#include "core/log.h"

namespace mhmoe::cli {
namespace {

struct CheckpointCommand {
  std::string path, other, output;
  bool allow_nonfinite = false, overwrite = false;
};

void print(const std::string& text) {
  std::fputs(text.c_str(), stdout);
}

// Reads every byte of one checkpoint and says so; returns what is wrong.
std::optional<Error> verify_one(const std::string& path, bool allow_nonfinite) {
  constexpr double kMebibyte = 1 << 20;
  try {
    const train::Checkpoint checkpoint(path);
    checkpoint.verify(allow_nonfinite);
    print(fmt::format("{}: good: step {} of run {}, {} tensors, {:.1f} MiB\n", path, checkpoint.step(),
                      checkpoint.run_id(), checkpoint.tensors().size(),
                      static_cast<double>(checkpoint.bytes()) / kMebibyte));
    return std::nullopt;
  } catch (const Error& error) {
    print(fmt::format("{}: NOT GOOD: {}\n", path, error.what()));
    return error;
  }
}

void verify(const CheckpointCommand& command) {
  std::vector<std::string> paths;
  if (train::is_checkpoint_path(command.path)) {
    paths.push_back(command.path);
  } else {
    const std::string folder = train::checkpoints_folder(command.path);
    for (const int64_t step : train::checkpoint_steps(folder)) paths.push_back(train::checkpoint_path(folder, step));
  }
  if (paths.empty()) {
    fail(ExitCode::kMissingInput, "{}: no checkpoint there; expected a checkpoint, or a run's folder that has some",
         command.path);
  }
  std::optional<Error> first;
  size_t bad = 0;
  for (const std::string& path : paths) {
    const std::optional<Error> error = verify_one(path, command.allow_nonfinite);
    if (!error) continue;
    ++bad;
    if (!first) first = error;
  }
  if (first) fail(first->code(), "{} of {} checkpoints not good: {}", bad, paths.size(), first->what());
}

// One that is named need not be good to be looked at.
void inspect(const CheckpointCommand& command) {
  const bool named = train::is_checkpoint_path(command.path);
  print(describe_checkpoint(named ? train::Checkpoint(command.path) : train::find_checkpoint(command.path, true)));
}

void export_model(const CheckpointCommand& command) {
  std::error_code error;
  if (std::filesystem::is_directory(command.output, error)) {
    fail(ExitCode::kCannotCreate, "{}: is a folder; give the file to write, such as {}/model.safetensors",
         command.output, command.output);
  }
  if (!command.overwrite && std::filesystem::exists(command.output, error)) {
    fail(ExitCode::kCannotCreate, "{}: is there already; choose another name, or --overwrite", command.output);
  }
  const train::Checkpoint checkpoint = train::find_checkpoint(command.path, command.allow_nonfinite);
  const std::vector<SafetensorsFile> files = checkpoint.read("model");
  std::vector<NamedTensor> tensors;
  for (const SafetensorsFile& file : files) {
    for (const std::string& name : file.names()) tensors.push_back({name, file.at(name)});
  }
  write_safetensors(command.output, tensors, {{"format", "mhmoe"}, {"config", checkpoint.config()}});
  log::info("{}: the model of {} (step {}), {} tensors", command.output, checkpoint.path(), checkpoint.step(),
            tensors.size());
}

constexpr const char* kPathMeaning = "a checkpoint, a run's folder, or its folder of checkpoints";
constexpr const char* kNewest = "a checkpoint, or a run's folder: its newest good checkpoint";

void add_nonfinite_option(CLI::App& command, bool& allow) {
  command.add_flag("--allow-nonfinite", allow, "do not mind stored values that are NaN or infinite");
}

}  // namespace

void add_checkpoint_command(CLI::App& app) {
  auto options = std::make_shared<CheckpointCommand>();
  CLI::App* command = app.add_subcommand("checkpoint", "Verify, inspect, export and compare checkpoints");
  command->require_subcommand(1);
  command->footer(
      "Format and promises: docs/checkpoints.md\n"
      "Examples: mhmoe checkpoint verify runs/mhmoe_8\n"
      "          mhmoe checkpoint export runs/mhmoe_8 mhmoe_8.safetensors");

  CLI::App* verify_command = command->add_subcommand("verify", "Read every byte and compare with the checksums");
  verify_command->add_option("PATH", options->path, kPathMeaning)->required();
  add_nonfinite_option(*verify_command, options->allow_nonfinite);
  verify_command->footer("Example: mhmoe checkpoint verify runs/mhmoe_8");
  verify_command->callback([options] { verify(*options); });

  CLI::App* inspect_command = command->add_subcommand("inspect", "Print what a checkpoint holds, from its manifest");
  inspect_command->add_option("PATH", options->path, kNewest)->required();
  inspect_command->footer("Example: mhmoe checkpoint inspect runs/mhmoe_8/checkpoints/step-00001000");
  inspect_command->callback([options] { inspect(*options); });

  CLI::App* export_command = command->add_subcommand("export", "Write the model as one plain safetensors file");
  export_command->add_option("PATH", options->path, kNewest)->required();
  export_command->add_option("OUTPUT", options->output, "the safetensors file to write")->required();
  export_command->add_flag("--overwrite", options->overwrite, "replace OUTPUT if it is there");
  add_nonfinite_option(*export_command, options->allow_nonfinite);
  export_command->footer("Example: mhmoe checkpoint export runs/mhmoe_8 mhmoe_8.safetensors");
  export_command->callback([options] { export_model(*options); });

  CLI::App* compare = command->add_subcommand("compare", "How far two runs went the same way; reads no weights");
  compare->add_option("FIRST", options->path, kPathMeaning)->required();
  compare->add_option("SECOND", options->other, kPathMeaning)->required();
  compare->footer("Example: mhmoe checkpoint compare runs/mhmoe_8 runs/mhmoe_8_again");
  compare->callback([options] { print(compare_checkpoints(options->path, options->other)); });
}

}  // namespace mhmoe::cli
